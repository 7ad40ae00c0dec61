"""Whether questions can be answered here: a bundle is live, somebody answers, and for long."""

from service.schemas.state import Readiness
from service.state.bundle_watcher import LiveBundle


def readiness_of(live_bundle: LiveBundle, is_consumed: bool, is_draining: bool) -> Readiness:
    """Tell it, with what is wrong."""
    told = live_bundle.readiness()
    if is_draining:
        told["status"] = "draining"
    elif not is_consumed:
        told["status"] = "stopped"
        reason = "questions are no longer answered; the log tells why; restart"
        told["reasons"] = [*told.get("reasons", []), reason]
    return told
