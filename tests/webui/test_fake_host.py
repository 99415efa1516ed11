"""The fake web UI against the sources of the real ones: names, arguments, and the order of the host's calls. Nothing of a host is run."""

import ast
import json
import re
from pathlib import Path

import pytest
from webui import fake_host
from webui.test_real_hosts import HOSTS, folder_of

from sparsedict.sparsedict_core.prompt_tags import NAME, find_tags, parse_tag
from sparsedict.webui_host.network import INFOTEXT

OWN = {"StableDiffusionProcessing.__init__"}  # not as the host's


@pytest.fixture(scope="module", params=list(HOSTS))
def source(request):
    """A file of the host, parsed."""
    root, read = folder_of(request.param) / "host", {}

    def parsed(name):
        if name not in read:
            read[name] = ast.parse((root / name).read_text(encoding="utf-8"))
        return read[name]

    return parsed


def arguments(function):
    """What a caller must know: names, which may be left out, and what else is taken."""
    given = function.args
    names = [each.arg for each in given.posonlyargs + given.args]
    return names, len(given.defaults), given.vararg is not None, [each.arg for each in given.kwonlyargs], given.kwarg is not None


def named(tree, name):
    return next((node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name), None)


def methods(node):
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


FAKE = ast.parse(Path(fake_host.__file__).read_text(encoding="utf-8"))


def test_classes_and_functions_take_what_the_hosts_take(source):
    wrong = []
    for name, file in fake_host.HOME.items():
        fake, real = named(FAKE, name), named(source(file), name)
        pairs = [(name, fake, real)]
        if isinstance(fake, ast.ClassDef) and real is not None:
            pairs = [(f"{name}.{method}", function, methods(real).get(method)) for method, function in methods(fake).items()]
        for place, ours, theirs in pairs:
            if place not in OWN and (theirs is None or arguments(ours) != arguments(theirs)):
                wrong.append(f"{file}: {place} {'is not there' if theirs is None else f'takes {ast.unparse(theirs.args)}'}")
    assert not wrong


def test_all_that_the_fake_has_is_held_against_the_host():
    defined = {node.name for node in FAKE.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert defined - {"install", "params"} == set(fake_host.HOME)


def test_what_else_is_asked_for_is_there(source):
    for name, wanted in fake_host.NAMES.items():
        found = set()
        for node in source(name).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {alias.asname or alias.name for alias in node.names}
        assert set(wanted) <= found, name


def test_the_host_calls_in_the_order_that_is_replayed(source):
    for (file, name), order in fake_host.ORDERS.items():
        calls = [node for node in ast.walk(named(source(file), name)) if isinstance(node, ast.Call)]
        told = [ast.unparse(call.func) for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset))]
        rest = iter(told)
        assert all(wanted in rest for wanted in order), (file, name, order, [call for call in told if call in order])


def test_a_picture_ends_without_an_end_where_the_prompt_has_no_tag(source):
    """`process_images_inner` deactivates only where the prompt named networks: why `activate` clears first."""
    inner = named(source("modules/processing.py"), "process_images_inner")
    guards = [ast.unparse(node.test) for node in ast.walk(inner) if isinstance(node, ast.If) and any("extra_networks.deactivate" in ast.unparse(each) for each in node.body)]
    assert guards and all("p.extra_network_data" in guard for guard in guards)


def pattern(tree, name):
    """A regular expression that the host writes down, compiled or as text."""
    assigned = next(node.value for node in tree.body if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets))
    return re.compile(ast.literal_eval(assigned.args[0] if isinstance(assigned, ast.Call) else assigned))


def test_the_host_takes_a_tag_apart_as_the_core_reads_it(source):
    finds = pattern(source("modules/extra_networks.py"), "re_extra_net")
    texts = [each["text"] for each in json.loads((Path(__file__).parents[1] / "vectors/webui_tags.json").read_text())]
    texts += [f"<{NAME}:styles/ink, wet:-0.5:gain=cat:L1[2]*1.5+L3*0:start=0.2:end=0.9>", f"<{NAME}:zorp>"]
    prompt = f"a (cat:1.2) {' '.join(texts)} on a [beach:sea:0.5] <lora:x:1>"
    found = [match.group(2) for match in finds.finditer(prompt) if match.group(1) == NAME]
    assert [parse_tag(each.split(":")) for each in found] == find_tags(prompt)[1] and len(found) == len(texts)


def test_what_the_pictures_text_says_of_the_files_comes_back_whole(source):
    reads = pattern(source("modules/infotext_utils.py"), "re_param_code")
    said = "zorp: 0123456789ab, styles/ink, wet: ba9876543210"
    line = f"Steps: 4, Seed: 1, Size: 64x64, {INFOTEXT}: {json.dumps(said)}, Version: v1"  # the host quotes what has a comma or a colon
    values = dict(reads.findall(line))
    assert json.loads(values[INFOTEXT]) == said and values["Steps"] == "4" and values["Version"] == "v1"
