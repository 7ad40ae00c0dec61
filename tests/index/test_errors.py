import re

import index.errors
from index.errors import EsansError, UnknownAttributeError
from service.errors import TABLE, UnknownFilterError


def error_classes():
    values = vars(index.errors).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, EsansError)]


def test_error_codes_are_unique_and_kebab_case():
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_error_classes_in_http_have_their_own_codes():
    classes = [error for error in TABLE if error is not UnknownFilterError]
    assert all("code" in vars(error) for error in TABLE)
    assert len({error.code for error in classes}) == len(classes)
    assert UnknownFilterError.code == UnknownAttributeError.code
