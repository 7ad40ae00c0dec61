"""The other positives of the batch as negatives: no further item is encoded."""

import torch

from trainer.samplers.interface import Context, Negatives


def in_batch(context: Context) -> Negatives:
    """Share the batch's positives; an item is drawn as often as it is a target.

    log q = log(batch * target share), at negatives and positives alike.
    Every training positive of a row's user is masked, the row's own positive among them, so
    neither its twin in the batch nor another item that the user took counts against it.

    Source: Yi et al., RecSys 2019 (in-batch softmax with sampling-bias correction, by counts).
    """
    count = len(context.positive_rows)
    log_q = torch.log(count * context.target_share[context.positive_rows])
    return Negatives(
        vectors=context.positives,
        log_q=log_q,
        is_masked=context.is_known(context.positive_rows),
        positive_log_q=log_q,
        rows=context.positive_rows,
    )
