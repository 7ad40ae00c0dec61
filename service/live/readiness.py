"""Whether questions can be answered here: a bundle is live, somebody answers, and for long."""

from service.admission import Admission
from service.lifetime import Lifetime
from service.live.live_bundle import LiveBundle
from service.schemas.state import Readiness


def readiness_of(
    live_bundle: LiveBundle, admission: Admission, lifetime: Lifetime
) -> Readiness:
    """Tell it, with what is wrong."""
    told = live_bundle.readiness()
    if lifetime.is_draining:
        told["status"] = "draining"
    elif not admission.is_running:
        told["status"] = "stopped"
        reason = "questions are no longer answered; the log tells why; restart"
        told["reasons"] = [*told.get("reasons", []), reason]
    return told
