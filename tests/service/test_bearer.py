import pytest

from tests.support.http_caller import running

TOKEN = "secret"


@pytest.fixture(scope="module")
def admin(bundles_folder):
    with running(bundles_folder, admin_token=TOKEN) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.mark.parametrize("scheme", ["Digest", "Bearer2", "Beare", "xBearer", ""])
def test_the_token_in_another_scheme_of_any_length_is_refused(admin, scheme):
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    told = admin.ask("PUT", "/admin/denylist", json={"items": []}, headers=headers)
    assert told.status_code == 401


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), ""])
def test_a_token_that_is_nearly_right_is_refused(admin, token):
    headers = {"Authorization": f"Bearer {token}"}
    told = admin.ask("PUT", "/admin/denylist", json={}, headers=headers)
    assert told.status_code == 401
