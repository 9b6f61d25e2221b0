"""Makes a client of the API from its OpenRPC document: `generate.py OPENRPC.json >megatorrent_api.py`. Standard library only."""

import json
import keyword
import pprint
import sys
import textwrap

HEADER = '''\
"""A client of a Megatorrent node's API, made from its OpenRPC document. Do not edit."""

import http.client
import json
import re
import urllib.parse


class ApiError(Exception):
    """A call's error; `code` and `exit_code` are for programs."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.exit_code = error["data"]["exit_code"]


class Mismatch(Exception):
    """An answer is not what the document states."""


def check(schema, value, at="answer"):
    """Raises where a value does not fit a schema. An object has the members that its schema names."""
    def wrong(why):
        raise Mismatch(f"{at}: {value!r}: {why}")
    if schema is True:
        return
    if "$ref" in schema:
        check(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]], value, at)
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(KINDS[kind](value) for kind in kinds):
            wrong(f"is none of {kinds}")
    if "enum" in schema and value not in schema["enum"]:
        wrong(f"is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        wrong(f"is not {schema['const']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        wrong(f"does not match {schema['pattern']}")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        wrong("is out of bounds")
    for one in schema.get("allOf", []):
        check(one, value, at)
    for name in ("anyOf", "oneOf"):
        if name in schema and not any(fits(one, value) for one in schema[name]):
            wrong(f"fits nothing of {name}")
    if isinstance(value, list) and "items" in schema:
        for number, one in enumerate(value):
            check(schema["items"], one, f"{at}[{number}]")
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", []) if name not in value]
        if missing:
            wrong(f"has no {missing}")
        for name, one in value.items():
            if name in schema.get("properties", {}):
                check(schema["properties"][name], one, f"{at}.{name}")
            elif "properties" in schema and schema.get("additionalProperties") is not True:
                wrong(f"has {name}, which is not described")


def fits(schema, value):
    try:
        check(schema, value)
    except Mismatch:
        return False
    return True


KINDS = {
    "null": lambda it: it is None,
    "boolean": lambda it: isinstance(it, bool),
    "integer": lambda it: isinstance(it, int) and not isinstance(it, bool),
    "number": lambda it: isinstance(it, (int, float)) and not isinstance(it, bool),
    "string": lambda it: isinstance(it, str),
    "array": lambda it: isinstance(it, list),
    "object": lambda it: isinstance(it, dict),
}
LEFT_OUT = object()


class Client:
    """Calls a node at `url` (`http://HOST:PORT`, or the folder of a proxy) with a token."""

    def __init__(self, url, token, timeout=60):
        self._url = urllib.parse.urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._timeout = timeout
        self._number = 0

    def call(self, method, params):
        """Makes a call by its name; its result, unchecked."""
        self._number += 1
        body = json.dumps({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        connection = http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=self._timeout)
        try:
            connection.request("POST", f"{self._url.path}/api/rpc", body, self._headers)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise ApiError(answer["error"])
        if answer["id"] != self._number or answer["jsonrpc"] != "2.0":
            raise Mismatch(f"not the answer to call {self._number}: {answer}")
        return answer["result"]

    def _checked(self, method, params, schema):
        params = {name: value for name, value in params.items() if value is not LEFT_OUT}
        result = self.call(method, params)
        check(schema, result, method)
        return result
'''


def argument(name):
    """A parameter's name in Python."""
    return f"{name}_" if keyword.iskeyword(name) else name


def method(one):
    """The text of a method."""
    params = sorted(one["params"], key=lambda it: not it["required"])
    names = [argument(it["name"]) + ("" if it["required"] else "=LEFT_OUT") for it in params]
    signature = ", ".join(["self"] + (["*"] if names else []) + names)
    given = ", ".join(f"{it['name']!r}: {argument(it['name'])}" for it in params)
    schema = pprint.pformat(one["result"]["schema"], width=100, sort_dicts=True)
    doc = json.dumps(one["summary"])
    return f"""
def {one['name']}({signature}):
    {doc}
    schema = \\
{textwrap.indent(schema, ' ' * 8)}
    return self._checked({one['name']!r}, {{{given}}}, schema)
"""


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    print(HEADER)
    for one in document["methods"]:
        print(textwrap.indent(method(one), "    ").rstrip("\n"))
    print("\n\nSCHEMAS = \\")
    print(textwrap.indent(pprint.pformat(document["components"]["schemas"], width=100), "    "))


main()
