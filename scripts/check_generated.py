"""Checks generated files by the readers they are for; scripts/check_generated installs those and calls this.

Every YAML document is parsed with repeated keys refused; Kubernetes objects are checked by kubernetes-validate in strict
mode, custom resources against the reduced schemas of tests/data/crds, charts by helm, rules by promtool, archives by
NumPy. Prints each failure, what was skipped, and a line with the counts.
"""
import argparse
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import numpy
import referencing
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "tests/data/crds"
KUBERNETES = "1.35"  # what the objects are checked against
# Reading a schema takes longer than using it, and the package reads it for every object.
kubernetes_validate.utils.schema_contents = functools.lru_cache(maxsize=None)(kubernetes_validate.utils.schema_contents)

checks, failures, skipped = 0, [], {}


def check(what, problem):
    """Counts one check; `problem`: what is wrong, or nothing."""
    global checks
    checks += 1
    if problem:
        failures.append(f"{what}: {problem}")


def attempt(what, call, *args):
    """The call's result, or None with a failure noted."""
    try:
        result = call(*args)
        check(what, None)
        return result
    except Exception as error:  # whatever a reader throws is a refusal
        check(what, " ".join(str(error).split())[:300])
        return None


class StrictLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    pass


def mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise ValueError(f"keys {sorted(map(str, repeated))} are repeated")
    odd = [key for key in keys if not isinstance(key, str)]
    if odd:
        raise ValueError(f"keys {odd} are no texts")
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def documents(text):
    return [document for document in yaml.load_all(text, Loader=StrictLoader) if document is not None]


@functools.lru_cache(maxsize=None)
def definitions():
    folder = pathlib.Path(kubernetes_validate.__file__).parent / f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    return referencing.Resource.from_contents(json.loads((folder / "_definitions.json").read_text()),
                                              default_specification=referencing.jsonschema.DRAFT4)


@functools.lru_cache(maxsize=None)
def validator(path):
    registry = referencing.Registry().with_resource("_definitions.json", definitions())
    schema = json.loads(pathlib.Path(path).read_text())
    return jsonschema.Draft7Validator(schema, registry=registry)


def follow(schema, value):
    error = jsonschema.exceptions.best_match(validator(str(schema)).iter_errors(value))
    if error:
        raise ValueError(f"{'/'.join(map(str, error.absolute_path))}: {error.message}")


def custom_schema(document):
    version = document["apiVersion"].split("/")[-1]
    path = SCHEMAS / f"{document['kind'].lower()}-{version}.json"
    return path if "." in document["apiVersion"].split("/")[0] and path.exists() else None


def check_object(where, document):
    what = f"{where}: {document.get('kind')} {document.get('metadata', {}).get('name')}"
    custom = custom_schema(document)
    if custom:
        attempt(what, follow, custom, document)
    else:
        attempt(what, lambda: kubernetes_validate.validate(document, KUBERNETES, strict=True))
    name = document.get("metadata", {}).get("name", "")
    check(what, None if re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) else "its name is none")
    if document["kind"] == "ConfigMap":
        check_config_map(what, document)
    if document["kind"] == "DynamoGraphDeployment":
        check_planner(what, document)


def check_config_map(what, document):
    for name, text in document["data"].items():
        if name == "runtime.json":
            attempt(what, follow, ROOT / "docs/schema/runtime.schema.json", json.loads(text))
        elif name.endswith("_raw_data.json"):
            attempt(what, follow, SCHEMAS / "planner-profile.json", json.loads(text))
        elif name.endswith(".yaml"):
            attempt(f"{what}: {name}", documents, text)


def check_planner(what, document):
    spec = document["spec"]
    containers = [c["podTemplate"]["spec"]["containers"][0] for c in spec.get("components", [])]
    containers += [s["extraPodSpec"]["mainContainer"] for s in spec.get("services", {}).values()]
    for container in containers:
        if "dynamo.planner" in container["command"]:
            config = json.loads(container["args"][1].replace("$$", "$"))
            attempt(f"{what}: planner", follow, SCHEMAS / "planner-config.json", config)


def run_in(folder, *command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, cwd=folder)
    if result.returncode != 0:
        raise ValueError(result.stdout + result.stderr)
    return result.stdout


def run(*command):
    return run_in(None, *command)


def check_rules(where, promtool, groups):
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.yaml"
        rules.write_text(yaml.safe_dump({"groups": groups}))
        attempt(f"{where}: promtool check rules", run, promtool, "check", "rules", rules)
        if any(rule.get("record", "").startswith("triton:") for group in groups for rule in group["rules"]):
            shutil.copy(ROOT / "tests/data/triton_rules_test.yaml", folder)
            attempt(f"{where}: promtool test rules", run_in, folder, promtool, "test", "rules", "triton_rules_test.yaml")


def check_rule_file(path, promtool):
    text = path.read_text()
    if path.name == "rules_test.yaml":
        # The run walks four days of series: once for each set of rules that differs.
        attempt(f"{path}: promtool test rules", run_in, path.parent, promtool, "test", "rules", path.name)
    else:
        attempt(f"{path}: promtool check rules", run, promtool, "check", "rules", path)
    return text


def check_dashboard(path, promtool):
    board = attempt(path, json.loads, path.read_text())
    if board is None:
        return
    attempt(path, follow, SCHEMAS / "grafana-dashboard.json", board)
    ids = [panel["id"] for panel in board["panels"]]
    check(path, None if len(set(ids)) == len(ids) else "panels share an id")
    if promtool:
        queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
        rules = [{"record": f"panel:{i}", "expr": query.replace("$__rate_interval", "5m")} for i, query in enumerate(queries)]
        check_rules(path, promtool, [{"name": "panels", "rules": rules}])


# Values that people change, and what the schema must refuse.
GOOD_VALUES = [[], ["autoscaling.enable=false"], ["storage.existingClaim=mine", "monitoring.enable=false"],
               ["model.tensorrtLlm.parallelism.pipeline=2", "model.pullSecret="]]
BAD_VALUES = ["autoscaling.replicas.minimum=none", "triton.image.name=", "gpu=x", "modle.name=x"]


def check_chart(chart, helm, promtool):
    attempt(f"{chart}: helm lint", run, helm, "lint", "--strict", "--quiet", chart)
    values = yaml.load((chart / "values.yaml").read_text(), Loader=StrictLoader)
    hostile = "hostile" in str(chart)
    for changes in GOOD_VALUES[:1] if hostile else GOOD_VALUES:
        flags = [word for change in changes for word in ("--set", change)]
        text = attempt(f"{chart}: helm template {changes}", run, helm, "template", "release", chart, *flags)
        rendered = attempt(f"{chart}: {changes}", documents, text) if text else None
        for document in rendered or []:
            check_object(f"{chart} {changes}", document)
            if document["kind"] == "Deployment":
                check_gpus(f"{chart} {changes}", document, values, changes)
            if document["kind"] == "ConfigMap":
                check_engine(f"{chart} {changes}", document, values)
            if document["kind"] == "PrometheusRule" and promtool:
                check_rules(chart, promtool, document["spec"]["groups"])
    for change in [] if hostile else BAD_VALUES:
        accepted = subprocess.run([helm, "template", "release", chart, "--set", change], capture_output=True).returncode == 0
        check(f"{chart}: --set {change}", "was accepted" if accepted else None)


def check_gpus(what, document, values, changes):
    sizes = values["model"]["tensorrtLlm"]["parallelism"]
    pipeline = 2 if any("pipeline=2" in change for change in changes) else sizes["pipeline"]
    limits = document["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    want = sizes["tensor"] * pipeline
    check(what, None if int(limits["nvidia.com/gpu"]) == want else f"{limits['nvidia.com/gpu']} GPUs, not {want}")


def check_engine(what, document, values):
    options = yaml.load(document["data"]["model.yaml"], Loader=StrictLoader)
    want = values["model"]["tensorrtLlm"]["options"]
    lost = [key for key in want if options.get(key) != want[key]]
    check(what, f"model.yaml differs from values.yaml in {lost}" if lost else None)
    name = values["model"]["name"]
    weights = name if name.startswith("/") else f"/var/run/models/{values['model']['folder']}"
    check(what, None if options["model"] == weights else f"the model is {options['model']!r:.80}")


def check_archive(path):
    with numpy.load(path) as data:
        lengths = {name: data[name].shape for name in data.files if name != "max_kv_tokens"}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"lengths differ: {lengths}")
        if not all(numpy.isfinite(data[name]).all() for name in data.files):
            raise ValueError("values are not finite")


def check_script(path, shellcheck):
    first = path.read_text(errors="replace").split("\n", 1)[0]
    attempt(f"{path}: syntax", run, "sh" if first.endswith("/sh") else "bash", "-n", path)
    if shellcheck:
        attempt(f"{path}: shellcheck", run, shellcheck, "--exclude=SC2016", path)  # names hold $ on purpose


def is_template(path):
    return any((parent / "Chart.yaml").exists() and parent.joinpath("templates") in path.parents for parent in path.parents)


def check_yaml(path):
    for document in attempt(path, lambda: documents(path.read_text())) or []:
        if isinstance(document, dict) and "apiVersion" in document and "kind" in document:
            check_object(path, document)
        if path.name == "values.yaml" and "modelArtifacts" in document:
            attempt(path, follow, SCHEMAS / "llm-d-values.json", document)


def tool(path, name, why):
    if path and os.access(path, os.X_OK):
        return path
    skipped[name] = why
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--helm")
    parser.add_argument("--promtool")
    options = parser.parse_args()
    helm = tool(options.helm, "helm", "charts are not rendered")
    promtool = tool(options.promtool, "promtool", "rules and queries are not checked")
    shellcheck = tool(shutil.which("shellcheck"), "shellcheck", "scripts are checked for syntax only")
    jobs = []
    for path in sorted(p for p in options.folder.rglob("*") if p.is_file()):
        if is_template(path):
            continue
        if path.name == "Chart.yaml" and helm:
            jobs.append((check_chart, path.parent, helm, promtool))
        if path.parent.name == "alerts" and path.name in ("rules.yaml", "rules_test.yaml") and promtool:
            jobs.append((check_rule_file, path, promtool))
        if path.suffix in (".yaml", ".yml"):
            jobs.append((check_yaml, path))
        elif path.name == "dashboard.json":
            jobs.append((check_dashboard, path, promtool))
        elif path.name == "runtime.json":
            jobs.append((lambda p: attempt(p, follow, ROOT / "docs/schema/runtime.schema.json", json.loads(p.read_text())), path))
        elif path.suffix == ".json":
            jobs.append((lambda p: attempt(p, json.loads, p.read_text()), path))
        elif path.suffix == ".npz":
            jobs.append((lambda p: attempt(p, check_archive, p), path))
        elif path.suffix == ".sh":
            jobs.append((check_script, path, shellcheck))
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:  # the tools are processes of their own
        for job in [pool.submit(*job) for job in jobs]:
            job.result()
    for failure in failures:
        print(f"FAILED {failure}")
    for name, why in sorted(skipped.items()):
        print(f"SKIPPED: {name}: can't be had, {why}")
    print(f"{checks} checks of {len(jobs)} files, {len(failures)} failed, {len(skipped)} tools skipped")
    return 1 if failures or not checks else 0


sys.exit(main())
