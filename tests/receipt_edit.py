"""Receipts for tests: their one text (RFC 8785), apart from the program's own writer, and edits that are sealed again."""
import copy
import hashlib
import json
import math


def number(value):
    """As ECMAScript writes it. Python's repr has the same digits."""
    if isinstance(value, int):
        value = float(value)
    if value == 0:
        return "0"
    digits, exponent = f"{abs(value)!r}", 0
    if "e" in digits:
        digits, exponent = digits.split("e")[0], int(digits.split("e")[1])
    whole, _, part = digits.partition(".")
    point = len(whole) + exponent
    figures = (whole + part).lstrip("0")
    point -= len(whole + part) - len((whole + part).lstrip("0"))
    figures = figures.rstrip("0")
    n = len(figures)
    sign = "-" if value < 0 else ""
    if 0 < point <= 21:
        return sign + (figures + "0" * (point - n) if n <= point else figures[:point] + "." + figures[point:])
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + figures
    mantissa = figures[0] + ("." + figures[1:] if n > 1 else "")
    return f"{sign}{mantissa}e{'-' if point < 1 else '+'}{abs(point - 1)}"


def canonical(value):
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        assert math.isfinite(value)
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\x7f")
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(canonical(key) + ":" + canonical(value[key]) for key in keys) + "}"


def digest(receipt):
    return hashlib.sha256(canonical({k: v for k, v in receipt.items() if k != "receipt_sha256"}).encode()).hexdigest()


def sealed(receipt):
    """The text of a receipt of these fields, as somebody who knows the format writes it."""
    return canonical({**receipt, "receipt_sha256": digest(receipt)}) + "\n"


def edited(path, edit, out=None):
    """The receipt at `path` changed by edit(object) and sealed again."""
    receipt = copy.deepcopy(json.loads(path.read_text()))
    edit(receipt)
    out = out or path.with_name("edited.json")
    out.write_text(sealed(receipt))
    return out
