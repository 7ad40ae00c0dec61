import pytest

from tests.support.http_caller import running

TOKEN = "secret"


@pytest.fixture(scope="module")
def admin(bundles_folder):
    with running(bundles_folder, admin_token=TOKEN) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.mark.parametrize("scheme", ["Digest", "Bearer2", "Beare", "xBearer", ""])
def test_token_in_unknown_scheme_returns_401(admin, scheme):
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    response = admin.request("PUT", "/admin/denylist", json={"items": []}, headers=headers)
    assert response.status_code == 401


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), ""])
def test_almost_equal_token_returns_401(admin, token):
    headers = {"Authorization": f"Bearer {token}"}
    response = admin.request("PUT", "/admin/denylist", json={}, headers=headers)
    assert response.status_code == 401
