"""Assertions on problem responses (RFC 9457)."""


def assert_problem(response, status, code=None):
    """Check that a response is a problem of this status, and code if given; return its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} <= problem.keys()
    assert code is None or problem["type"] == f"urn:esans:problem:{code}"
    return problem
