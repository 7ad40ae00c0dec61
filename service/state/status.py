"""Whether questions can be answered here: a bundle is live, somebody answers, and for long."""

from service.admission import Admission
from service.lifetime import Lifetime
from service.schemas.state import Readiness
from service.state.bundle_watcher import LiveBundle


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
