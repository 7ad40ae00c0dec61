import re

import index.errors
from index.errors import EsansError
from service.errors import TABLE


def error_classes():
    values = vars(index.errors).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, EsansError)]


def test_error_codes_are_unique_and_kebab_case():
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_error_codes_equal_problem_types():
    codes = {error: error.code for error in error_classes() if error in TABLE}
    assert codes == {error: row.code for error, row in TABLE.items() if error in codes}
