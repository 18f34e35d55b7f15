# SPDX-License-Identifier: BSD-2-Clause
"""The part of JSON Schema that rpc.discover uses, written apart from the daemon's own."""
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
WORDS = {"type", "properties", "required", "additionalProperties", "items", "enum", "minimum", "maximum", "minLength", "maxLength", "maxItems",
         "description"}


def validate(s, v, where):
    assert set(s) <= WORDS, (where, s)
    t = s.get("type")
    assert t is None or any(isinstance(v, TYPES[x]) and (x == "boolean" or not isinstance(v, bool)) for x in ([t] if isinstance(t, str) else t)), (where, "type", t, v)
    assert "enum" not in s or v in s["enum"], (where, "enum", v)
    if isinstance(v, int):
        assert s.get("minimum", v) <= v <= s.get("maximum", v), (where, "range", v)
    if isinstance(v, str):
        assert s.get("minLength", 0) <= len(v) <= s.get("maxLength", len(v)), (where, "length", v)
    if isinstance(v, list):
        assert len(v) <= s.get("maxItems", len(v)), (where, "items")
        for i, item in enumerate(v):
            validate(s.get("items", {}), item, "%s[%d]" % (where, i))
    if isinstance(v, dict):
        for key in s.get("required", []):
            assert key in v, (where, "missing", key)
        for key, member in v.items():
            assert key in s.get("properties", {}) or s.get("additionalProperties", True), (where, "unknown", key)
            validate(s.get("properties", {}).get(key, {}), member, where + "." + key)
