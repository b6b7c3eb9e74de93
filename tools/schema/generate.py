#!/usr/bin/env python3
"""Generates the schema tables of wire/kube/schema from published sources.

    generate.py --definitions _definitions.json   # JSON schemas of the release (PyPI: kubernetes-validate)
                --go DIR --go DIR ...             # Go modules: k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator,metrics}
                --gateway DIR                     # gateway-api config/crd/experimental
                --istio FILE                      # istio customresourcedefinitions.gen.yaml
                --out wire/kube/schema

What is read are facts: field names, types, list kinds, merge keys and descriptions from the JSON schemas; protobuf field
numbers, omitempty and pointer-ness, enums and defaults from the struct tags and markers of the Go types. The format is one
line for a type and one for a field, sorted, so that the next release is a diff a person can read.

    T <type> TAB <flags> TAB <description>
     <field> TAB <protobuf number> TAB <type expression> TAB <flags> TAB <description>

A type expression is a scalar (string int32 int64 bool double bytes quantity int-or-string time microtime duration raw json fields
props-or-array props-or-bool props-or-strings), `[]E` (list), `~[]E` (list wrapped in a protobuf message), `{}E` (map by string) or a type's name.
Of custom resources: `R <names as JSON>`, `V <version as JSON>` (schemaOf: the version whose schema it shares) and an indented tree of
`<name> TAB <type> TAB <other keywords as JSON> TAB <description>`, where `[]` is the item of a list and `{}` the value of a map.
A number `2.5` is field 5 of the message that is inlined from field 2. Backslash, tab and newline are escaped in the last column.
"""

import argparse
import glob
import json
import os
import re
import sys

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CORE = "io.k8s.api.core.v1."

KINDS = {
    CORE: "Namespace Node Pod PodTemplate ReplicationController ConfigMap Secret ServiceAccount Service Endpoints Event PersistentVolumeClaim "
    "PersistentVolume ResourceQuota LimitRange Binding",
    "io.k8s.api.discovery.v1.": "EndpointSlice",
    "io.k8s.api.events.v1.": "Event",
    "io.k8s.api.coordination.v1.": "Lease",
    "io.k8s.api.storage.v1.": "StorageClass CSINode CSIDriver VolumeAttachment",
    "io.k8s.api.apps.v1.": "Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision",
    "io.k8s.api.batch.v1.": "Job CronJob",
    "io.k8s.api.policy.v1.": "PodDisruptionBudget Eviction",
    "io.k8s.api.scheduling.v1.": "PriorityClass",
    "io.k8s.api.node.v1.": "RuntimeClass",
    "io.k8s.api.autoscaling.v2.": "HorizontalPodAutoscaler",
    "io.k8s.api.autoscaling.v1.": "HorizontalPodAutoscaler Scale",
    "io.k8s.api.rbac.v1.": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "io.k8s.api.networking.v1.": "Ingress IngressClass NetworkPolicy",
    "io.k8s.api.authentication.v1.": "TokenReview TokenRequest SelfSubjectReview",
    "io.k8s.api.authorization.v1.": "SubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview LocalSubjectAccessReview",
    "io.k8s.api.certificates.v1.": "CertificateSigningRequest",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.": "CustomResourceDefinition",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.": "APIService",
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.": "NodeMetrics PodMetrics",
}
EXTRA = [META + n for n in "DeleteOptions Status PartialObjectMetadata PartialObjectMetadataList".split()]

SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    META + "Time": "time",
    META + "MicroTime": "microtime",
    META + "Duration": "duration",
    META + "FieldsV1": "fields",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "json",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "props-or-array",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "props-or-bool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "props-or-strings",
}
GO_SCALARS = {
    "string": "string", "bool": "bool", "int32": "int32", "int64": "int64", "int": "int64", "float64": "double",
    "uint8": "int32", "int8": "int32", "uint16": "int32",
}
# Values that Go's encoder prints even with omitempty, because a struct is never empty to it.
STRUCT_LIKE = {"quantity", "int-or-string", "time", "microtime", "duration", "raw", "json", "fields"}


class Package:
    """The declarations of one Go package that the tables are made of."""

    def __init__(self, name, folder):
        self.name = name
        self.structs, self.alias, self.enums, self.consts, self.docs, self.imports = {}, {}, {}, {}, {}, {}
        for path in sorted(glob.glob(os.path.join(folder, "*.go"))):
            base = os.path.basename(path)
            if base.endswith("_test.go") or base.startswith(("zz_", "generated", "types_swagger")):
                continue
            with open(path, encoding="utf-8") as handle:
                self.read(handle.read())

    def read(self, text):
        block = re.search(r"^import \((.*?)^\)", text, re.S | re.M)
        for alias, target in re.findall(r'(\w+)?\s*"([^"]+)"', block.group(1) if block else ""):
            self.imports[alias or target.rsplit("/", 1)[-1]] = target
        for name, kind, value in re.findall(r'^\s+(\w+)\s+(\w+)\s*=\s*"([^"]*)"', text, re.M):
            self.consts[name] = value
            self.enums.setdefault(kind, []).append(value)
        for name, value in re.findall(r'^\s+(\w+)\s*=\s*"([^"]*)"', text, re.M):
            self.consts.setdefault(name, value)
        doc, lines, at = [], text.split("\n"), 0
        while at < len(lines):
            line = lines[at]
            at += 1
            if line.startswith("//"):
                doc.append(line[2:].strip())
                continue
            match = re.match(r"type (\w+) (=\s*)?(.*)$", line)
            if match and match.group(3).startswith("struct"):
                fields = []
                if not match.group(3).rstrip().endswith("}"):
                    at, fields = self.fields(lines, at)
                self.structs[match.group(1)] = fields
                self.docs[match.group(1)] = doc
            elif match and not match.group(3).startswith(("interface", "func")):
                self.alias[match.group(1)] = match.group(3).split("//")[0].strip()
                self.docs[match.group(1)] = doc
            if line.strip():
                doc = []
        return self

    @staticmethod
    def fields(lines, at):
        fields, doc = [], []
        while not lines[at].startswith("}"):
            line = lines[at].strip()
            at += 1
            if line.startswith("//"):
                doc.append(line[2:].strip())
                continue
            match = re.match(r"^(?:(\w+)\s+)?([*\[\]\w.{}]+(?:\[[\w.]+\][*\[\]\w.]+)?)\s+`(.*)`", line)
            if match:
                tags = dict(re.findall(r'(\w+):"([^"]*)"', match.group(3)))
                fields.append((match.group(1), match.group(2), tags, doc))
            if line:
                doc = []
            elif doc:
                doc = []
        return at + 1, fields


def api_name(path):
    """k8s.io/api/core/v1 -> io.k8s.api.core.v1"""
    host, rest = path.split("/", 1)
    return ".".join(reversed(host.split("."))) + "." + rest.replace("/", ".")


class Source:
    """All Go packages, by the name that OpenAPI gives them."""

    def __init__(self, roots):
        self.folders = {}
        for root in roots:
            with open(os.path.join(root, "go.mod"), encoding="utf-8") as handle:
                module = re.search(r"^module (\S+)", handle.read(), re.M).group(1)
            self.folders[module] = root
        self.packages = {}

    def package(self, path):
        name = api_name(path)
        if name not in self.packages:
            module = next((m for m in self.folders if path == m or path.startswith(m + "/")), None)
            self.packages[name] = Package(name, self.folders[module] + path[len(module):]) if module else None
        return self.packages[name]

    def by_type(self, full):
        package, name = full.rsplit(".", 1)
        for module in self.folders:
            prefix = api_name(module)
            if package.startswith(prefix + "."):
                return self.package(module + "/" + package[len(prefix) + 1:].replace(".", "/")), name
        raise KeyError(full)

    def resolve(self, package, text):
        """A Go type expression -> (type expression of the table, is pointer, enum values)."""
        if text.startswith("*"):
            expr, _, enum = self.resolve(package, text[1:])
            return expr, True, enum
        if text == "[]byte":
            return "bytes", False, None
        if text.startswith("[]"):
            expr, _, _ = self.resolve(package, text[2:])
            return "[]" + expr, False, None
        match = re.match(r"map\[([\w.]+)\](.*)$", text)
        if match:
            expr, _, _ = self.resolve(package, match.group(2))
            return "{}" + expr, False, None
        if text in GO_SCALARS:
            return GO_SCALARS[text], False, None
        if "." in text:
            alias, name = text.split(".", 1)
            path = package.imports[alias]
            if path == "k8s.io/apimachinery/pkg/types":
                return "string", False, None
            full = api_name(path) + "." + name
            if full in SPECIAL:
                return SPECIAL[full], False, None
            return self.resolve(self.package(path), name)
        full = package.name + "." + text
        if full in SPECIAL:
            return SPECIAL[full], False, None
        if text in package.structs:
            return full, False, None
        expr, pointer, _ = self.resolve(package, package.alias[text])
        markers = package.docs.get(text, [])
        if any("+protobuf.nullable=true" in m for m in markers) and expr.startswith("[]"):
            expr = "~" + expr
        enum = sorted(set(package.enums.get(text, []))) if any(m.startswith("+enum") for m in markers) else None
        return expr, pointer, enum


def escape(text):
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "").replace("\n", "\\n")


def doc_text(doc):
    """The description that Kubernetes' generator makes of a doc comment."""
    kept = []
    for line in doc:
        if line == "---":
            break
        if not line.startswith(("+", "TODO")):
            kept.append(line)
    text = "\n".join(kept).strip()
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def default_of(package, doc):
    for line in doc:
        match = re.match(r"\+default=(.*)$", line)
        if match:
            reference = re.match(r"ref\(([\w.]+)\)", match.group(1))
            return json.dumps(package.consts[reference.group(1).split(".")[-1]]) if reference else match.group(1).strip()
    return None


def go_fields(source, full):
    """JSON name -> (protobuf number, expression, pointer, always printed, enum, default, doc), inlined structs flattened."""
    package, name = source.by_type(full)
    out = {}
    for _, text, tags, doc in package.structs[name]:
        if "json" not in tags or tags["json"] == "-":
            continue
        json_name, *options = tags["json"].split(",")
        number = int(tags["protobuf"].split(",")[1]) if "protobuf" in tags and tags["protobuf"] != "-" else 0
        if json_name == "":
            if text.endswith("TypeMeta"):
                for key in ("kind", "apiVersion"):
                    out[key] = (0, "string", False, False, None, None, [])
                continue
            expr, pointer, _ = source.resolve(package, text)
            assert not pointer, (full, text)
            for key, (inner, *rest) in go_fields(source, expr).items():
                out[key] = (f"{number}.{inner}" if number else str(inner), *rest)
            continue
        expr, pointer, enum = source.resolve(package, text)
        is_struct = expr in STRUCT_LIKE or expr.startswith("io.")
        omit = "omitzero" in options or ("omitempty" in options and (pointer or not is_struct))
        out[json_name] = (number, expr, pointer, not omit, enum, default_of(package, doc), doc)
    return out


def flags_of(field, schema, required, facts):
    _, _, pointer, always, enum, default, _ = facts
    flags = []
    if field in required:
        flags.append("req")
    if pointer:
        flags.append("ptr")
    if always:
        flags.append("always")
    kind = schema.get("x-kubernetes-list-type")
    if kind:
        keys = schema.get("x-kubernetes-list-map-keys")
        flags.append(f"list={kind}" + (":" + ",".join(keys) if keys else ""))
    if "x-kubernetes-map-type" in schema:
        flags.append("map=" + schema["x-kubernetes-map-type"])
    if "x-kubernetes-patch-strategy" in schema:
        key = schema.get("x-kubernetes-patch-merge-key")
        flags.append("patch=" + schema["x-kubernetes-patch-strategy"] + (":" + key if key else ""))
    if enum:
        flags.append("enum=" + "|".join(enum))
    if default is not None:
        assert " " not in default, default
        flags.append("default=" + default)
    return " ".join(flags)


def references(expr):
    name = expr.lstrip("~").replace("[]", "").replace("{}", "")
    if name.startswith("io."):
        yield name
    if name.startswith("props-or"):
        yield "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


def builtin(definitions, source):
    pending = list(EXTRA)
    for prefix, names in KINDS.items():
        for name in names.split():
            pending.append(prefix + name)
            if prefix + name + "List" in definitions or "metrics" in prefix:
                pending.append(prefix + name + "List")
    done, lines = set(), {}
    while pending:
        full = pending.pop()
        if full in done:
            continue
        done.add(full)
        schema = definitions.get(full, {})
        package, name = source.by_type(full)
        facts = go_fields(source, full)
        properties = schema.get("properties", {})
        if schema and set(properties) != set(facts):
            print(f"{full}: JSON schema and Go differ in {sorted(set(properties) ^ set(facts))}", file=sys.stderr)
        flags = ["atomic"] if schema.get("x-kubernetes-map-type") == "atomic" else []
        out = ["\t".join(["T " + full, " ".join(flags), escape(schema.get("description") or doc_text(package.docs[name]))])]
        for field in sorted(facts):
            number, expr = facts[field][0], facts[field][1]
            pending.extend(references(expr))
            info = properties.get(field, {})
            text = info.get("description") or doc_text(facts[field][6])
            out.append("\t".join([" " + field, str(number), expr, flags_of(field, info, schema.get("required", []), facts[field]), escape(text)]))
        lines[full] = out
    return [line for full in sorted(lines) for line in lines[full]]


# Keywords that get a column of their own or are written as child lines; all others stay JSON in the third column.
COLUMNS = {"type", "description", "properties", "items", "additionalProperties"}


def crd_schema(name, schema, depth, out):
    rest = {k: strip(v) for k, v in schema.items() if k not in COLUMNS}
    extra = schema.get("additionalProperties")
    if isinstance(extra, bool):
        rest["additionalProperties"] = extra
    text = json.dumps(rest, sort_keys=True, separators=(",", ":")) if rest else ""
    out.append(" " * depth + "\t".join([name, schema.get("type", ""), text, escape(schema.get("description", ""))]))
    for key in sorted(schema.get("properties", {})):
        crd_schema(key, schema["properties"][key], depth + 1, out)
    if "items" in schema:
        crd_schema("[]", schema["items"], depth + 1, out)
    if isinstance(extra, dict):
        crd_schema("{}", extra, depth + 1, out)


def strip(value):
    """Descriptions inside anyOf and the like say nothing that anyone asks for."""
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if not (k == "description" and isinstance(v, str))}
    return [strip(v) for v in value] if isinstance(value, list) else value


def crd(document):
    spec = document["spec"]
    head = {"group": spec["group"], "names": spec["names"], "scope": spec["scope"]}
    out = ["R " + json.dumps(head, sort_keys=True, separators=(",", ":"))]
    seen = {}
    for version in spec["versions"]:
        if not version["served"]:
            continue
        head = {k: v for k, v in version.items() if k != "schema"}
        lines = []
        crd_schema("", version["schema"]["openAPIV3Schema"], 1, lines)
        same = seen.setdefault("\n".join(lines), version["name"])
        if same != version["name"]:
            head["schemaOf"] = same
            lines = []
        out.append("V " + json.dumps(head, sort_keys=True, separators=(",", ":")))
        out.extend(lines)
    return out


def crds(paths, wanted):
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in paths:
        with open(path, encoding="utf-8") as handle:
            for document in yaml.load_all(handle, Loader=loader):
                if document and document.get("kind") == "CustomResourceDefinition":
                    found[document["metadata"]["name"]] = document
    return [line for name in sorted(found) if wanted(found[name]["spec"]) for line in crd(found[name])]


GATEWAY = "gateway.networking.k8s.io"

ISTIO = {
    "security.istio.io": {"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"},
    "networking.istio.io": {"VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "WorkloadGroup"},
}


def write(path, about, lines):
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(f"# {about} Made by tools/schema/generate.py: do not edit.\n" + "\n".join(lines) + "\n")
    print(f"{path}: {len(lines)} lines")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--definitions", required=True)
    parser.add_argument("--go", action="append", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--istio", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with open(options.definitions, encoding="utf-8") as handle:
        definitions = json.load(handle)["$defs"]
    write(os.path.join(options.out, "kubernetes-1.37.schema"), "Kubernetes 1.37 API types.", builtin(definitions, Source(options.go)))
    gateway = crds(sorted(glob.glob(os.path.join(options.gateway, "*.yaml"))), lambda spec: spec["group"] == GATEWAY or spec["names"]["kind"] == "XMesh")
    write(os.path.join(options.out, "gateway-1.6.schema"), "Gateway API 1.6 experimental channel.", gateway)
    istio = crds([options.istio], lambda spec: spec["names"]["kind"] in ISTIO.get(spec["group"], ()))
    write(os.path.join(options.out, "istio.schema"), "Istio API 1.31.", istio)


if __name__ == "__main__":
    main()
