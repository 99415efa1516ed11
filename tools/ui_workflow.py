"""Graphs in the front end's own format, laid out by group and column, and back to what the host's /prompt takes.

Every node is checked against the host's /object_info: a widget that was renamed stops the script, not the user.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .node_schema import default_of, has_seed_control, inputs_of, is_widget, problem, widgets_of

ALWAYS, MUTED, BYPASSED = 0, 2, 4  # the front end's modes of a node
COLOURS = {"base": "#3f789e", "data": "#8A8", "train": "#b06634", "use": "#8AA", "look": "#88A", "off": "#777"}
PACK, CORE = "sparsedict", "comfy-core"
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
INPUT_NODE, OUTPUT_NODE = -10, -20  # the ends of a subgraph
GAP, COLUMN_GAP, GROUP_GAP, TITLE = 50, 50, 70, 30

WINDOW, BARS = (1920, 960), (80, 110)  # pixels of a browser's page, and of what the host's bars cover at its left and top

Link = tuple["Node", int]


class WorkflowError(Exception):
    """A description that the host would not run."""


class Node:
    """One node; `node["model"]` or `node[0]` is a link from an output."""

    def __init__(self, number: int, kind: str, info: dict[str, Any] | None, title: str | None, mode: int, width: int) -> None:
        self.id, self.kind, self.info, self.title, self.mode, self.width = number, kind, info, title, mode, width
        self.sockets: dict[str, tuple[str, Link | None]] = {}
        self.values: dict[str, Any] = {}
        self.outputs: list[tuple[str, str]] = []
        self.height, self.pos = 0, (0, 0)
        self.tall = self.wide = 0  # in Nodes 2.0, where widgets take more room, and no node is narrow
        self.more: dict[str, Any] = {}

    def __getitem__(self, output: int | str) -> Link:
        names = [name.lower() for name, _ in self.outputs]
        index = output if isinstance(output, int) else names.index(output.lower())
        if index >= len(self.outputs):
            raise WorkflowError(f"{self.kind} has no output {output}.")
        return self, index


class Workflow:
    """`with flow.group("Base", "base"): node = flow.add("KSampler", model=base["model"], steps=16)`; then `flow.to_dict()`.

    A group is a column of nodes from top to bottom, `column()` begins another one beside it; groups go from left to right. The graph
    opens so that all up to the first group of the colour "look" is seen.
    """

    def __init__(self, name: str, object_info: dict[str, Any]) -> None:
        self.name, self.object_info = name, object_info
        self.nodes: list[Node] = []
        self.groups: list[dict[str, Any]] = []
        self._described: list[tuple[str, str, list[list[Node]]]] = []
        self._columns: list[list[Node]] = [[]]

    # -- building

    @contextmanager
    def group(self, title: str, colour: str, first: bool = False) -> Iterator[None]:
        """`first`: beside the note that the graph begins with, though it is made later: a result that would be far out of sight."""
        self._columns = [[]]
        yield
        self._described.insert(1 if first else len(self._described), (title, colour, self._columns))

    def _lay_out(self) -> None:
        x = 0
        for number, (title, colour, columns) in enumerate(self._described, 1):
            left, bottom = x, 0
            for column in columns:
                y = TITLE
                for node in column:
                    node.pos = (x, y)
                    y += max(node.height, node.tall) + GAP
                bottom = max(bottom, y - GAP)
                x += max(max(node.width, node.wide) for node in column) + COLUMN_GAP
            right = x - COLUMN_GAP
            bounding = [left - 20, -70, right - left + 40, bottom + 90]
            self.groups.append({"id": number, "title": title, "bounding": bounding, "color": COLOURS[colour], "font_size": 24, "flags": {}})
            x = right + GROUP_GAP

    def column(self) -> None:
        self._columns.append([])

    def note(self, text: str, title: str = "Note", width: int = 400) -> Node:
        node = self._place(Node(len(self.nodes) + 1, "MarkdownNote", None, title, ALWAYS, width))
        node.values = {"text": text.strip()}
        lines = sum(1 + len(line) * 7 // width for line in text.strip().splitlines())
        node.height = 60 + 21 * lines
        return node

    def reroute(self, source: Link) -> Node:
        kind = source[0].outputs[source[1]][1]
        node = self._place(Node(len(self.nodes) + 1, "Reroute", None, None, ALWAYS, 75))
        node.sockets, node.outputs, node.height = {"": ("*", source)}, [(kind, kind)], 26
        node.wide, node.tall = 240, 100
        return node

    def place(self, kind: str, pos: tuple[int, int], **more: Any) -> Node:
        """A node where you say, its required sockets open: for a blueprint, which gets them from outside."""
        node = self.add(kind, open_sockets=True, **more)
        node.pos = pos
        return node

    def add(
        self, kind: str, title: str | None = None, *, state: int = ALWAYS, wide: int = 330, preview: int = 0, unchecked: tuple[str, ...] = (),
        open_sockets: bool = False, folds: bool = False, **values: Any,
    ) -> Node:  # fmt: skip
        """A node of the host. `preview` is the height of the picture in it; `unchecked` names widgets that are lists of a user's own files;
        `folds` tells that the front end hides optional widgets that are at their defaults."""
        if kind not in self.object_info:
            raise WorkflowError(f"{self.name}: the host has no node {kind}.")
        info = self.object_info[kind]
        node = Node(len(self.nodes) + 1, kind, info, title, state, wide)
        node.outputs = list(zip(info["output_name"], info["output"], strict=True))
        known = inputs_of(info)
        for name in values.keys() - known.keys():
            raise WorkflowError(f"{self.name}: {kind} has no input {name}; it has {', '.join(known)}.")
        for name, (type_, options) in known.items():
            if not is_widget(type_, options):
                link = values.get(name)
                if link is None and state == ALWAYS and not open_sockets and name in info["input"].get("required", {}):
                    raise WorkflowError(f"{self.name}: {kind} needs {name}.")
                if link is not None:
                    given = link[0].outputs[link[1]][1]
                    if "*" not in (type_, given) and given not in type_.split(","):
                        raise WorkflowError(f"{self.name}: {kind}.{name} is {type_}, not {given}.")
                node.sockets[name] = (type_, link)
                continue
            value = values.get(name, default_of(type_, options))
            wrong = None if name in unchecked else problem(value, type_, options)
            if wrong:
                raise WorkflowError(f"{self.name}: {kind}.{name}: {wrong}.")
            node.values[name] = value
        widgets = widgets_of(info)
        if folds:
            widgets = {name: spec for name, spec in widgets.items() if name not in info["input"].get("optional", {}) or node.values[name] != default_of(*spec)}
        tall = sum(bool(options.get("multiline")) for _, options in widgets.values())
        seeds = sum(has_seed_control(name, options) for name, (type_, options) in widgets.items() if type_ == "INT")
        node.tall = 74 + 22 * max(len(node.sockets), len(node.outputs)) + 34 * (len(widgets) - tall + seeds) + 110 * tall + preview
        node.height = 16 + 21 * max(len(node.sockets), len(node.outputs)) + 25 * (len(widgets) - tall + seeds) + 95 * tall + preview
        return self._place(node)

    def _place(self, node: Node) -> Node:
        self.nodes.append(node)
        self._columns[-1].append(node)
        return node

    # -- the front end's format

    def to_dict(self) -> dict[str, Any]:
        """Once."""
        self._lay_out()
        nodes, links = self._nodes_and_links()
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"sparsedict/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": self._view()} if self.groups else {},
            "version": 0.4,
        }

    def _view(self) -> dict[str, Any]:
        """How the graph opens in a usual window: all that leads to the first result, and it."""
        shown = next(number for number, (_, colour, _) in enumerate(self._described, 1) if colour == "look")
        boxes = [group["bounding"] for group in self.groups[:shown]]
        left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
        width, height = max(box[0] + box[2] for box in boxes) - left, max(box[1] + box[3] for box in boxes) - top
        scale = min(0.8, (WINDOW[0] - BARS[0] - 20) / width, (WINDOW[1] - BARS[1] - 20) / height)
        return {"scale": round(scale, 3), "offset": [round((BARS[0] + 10) / scale - left), round((BARS[1] + 10) / scale - top)]}

    def _nodes_and_links(self) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        links: list[list[Any]] = []
        leaving: dict[tuple[int, int], list[int]] = {}
        arriving: dict[tuple[int, str], int] = {}
        for node in self.nodes:
            for slot, (name, (_, link)) in enumerate(node.sockets.items()):
                if link is not None:
                    number, (source, output) = len(links) + 1, link
                    links.append([number, source.id, output, node.id, slot, source.outputs[output][1]])
                    leaving.setdefault((source.id, output), []).append(number)
                    arriving[node.id, name] = number
        return [self._node(order, node, leaving, arriving) for order, node in enumerate(self.nodes)], links

    def _node(self, order: int, node: Node, leaving: dict, arriving: dict) -> dict[str, Any]:
        optional = node.info["input"].get("optional", {}) if node.info else {}
        inputs: list[dict[str, Any]] = []
        for name, (kind, _) in node.sockets.items():
            inputs.append({"name": name, **({"shape": 7} if name in optional else {}), "type": kind, "link": arriving.get((node.id, name))})
        widgets = widgets_of(node.info) if node.info else {}
        for name, (kind, _) in widgets.items():
            # The front end makes the sockets first, then one for each widget.
            inputs.append({"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "widget": {"name": name}, "link": None})
        outputs = [{"name": name, "type": kind, "links": leaving.get((node.id, slot))} for slot, (name, kind) in enumerate(node.outputs)]
        if node.kind == "Reroute":
            outputs[0]["name"] = ""
        written: dict[str, Any] = {
            "id": node.id, "type": node.kind, "pos": list(node.pos), "size": [node.width, node.height], "flags": {}, "order": order,
            "mode": node.mode, "inputs": inputs, "outputs": outputs,
        }  # fmt: skip
        if node.title:
            written["title"] = node.title
        if node.kind == "Reroute":
            return {**written, "properties": {"showOutputText": True, "horizontal": False}}
        pack = PACK if node.kind.startswith("SparseDict") else CORE
        written["properties"] = {} if node.info is None else {"cnr_id": pack, "Node name for S&R": node.kind}
        written["widgets_values"] = list(self._widget_values(node, widgets))
        return {**written, **(NOTE_COLOURS if node.info is None else {})}

    @staticmethod
    def _widget_values(node: Node, widgets: dict[str, tuple[Any, dict[str, Any]]]) -> Iterator[Any]:
        for name, value in node.values.items():
            yield value
            if name in widgets and widgets[name][0] == "INT" and has_seed_control(name, widgets[name][1]):
                yield "fixed"


def named_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Widget → value of a node in the front end's format. Raises WorkflowError if their number is another."""
    values, found = list(node.get("widgets_values") or []), {}
    for name, (kind, options) in widgets_of(info).items():
        if not values:
            raise WorkflowError(f"node {node['id']} ({node['type']}) has no value for {name}.")
        found[name] = values.pop(0)
        if kind == "INT" and has_seed_control(name, options) and values:
            values.pop(0)
    if values:
        raise WorkflowError(f"node {node['id']} ({node['type']}) has more values than widgets: {values}.")
    return found


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """What the front end would POST to /prompt: notes and reroutes gone, subgraphs opened, muted nodes cut out, bypassed ones passed through."""
    workflow = flattened(workflow)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}

    def source(number: int | str | None) -> list[Any] | None:
        if number is None:
            return None
        _, origin, slot, *_ = links[number]
        node = nodes[origin]
        if node["mode"] == MUTED:
            return None
        if node["type"] == "Reroute":
            return source(node["inputs"][0]["link"])
        if node["mode"] == BYPASSED:
            kind = node["outputs"][slot]["type"]
            same = [given for given in node["inputs"] if given["type"] == kind]
            return source(same[0]["link"]) if same else None
        return [str(origin), slot]

    prompt = {}
    for node in workflow["nodes"]:
        if node["mode"] != ALWAYS or node["type"] not in object_info:
            if node["mode"] == ALWAYS and node["type"] not in ("Reroute", "MarkdownNote", "Note"):
                raise WorkflowError(f"the host has no node {node['type']}.")
            continue
        given = {**named_values(node, object_info[node["type"]]), **node.get("overrides", {})}
        for entry in node["inputs"]:
            link = source(entry["link"])
            if link is not None:
                given[entry["name"]] = link
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


# -- one node that stands for several


def blueprint(flow: Workflow, title: str, inputs: dict[str, list[tuple[Node, str]]], outputs: dict[str, Link]) -> dict[str, Any]:
    """`flow` as a subgraph, and a workflow that holds one node of it: what the front end takes from a pack's `subgraphs` folder.

    `inputs`: a name outside → the sockets, or the one widget, that it leads to. `outputs`: a name outside → where it comes from.
    """
    inner = flow.to_dict()
    nodes = {node["id"]: node for node in inner["nodes"]}
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(keys, link, strict=True)) for link in inner["links"]]
    number = inner["last_link_id"]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"sparsedict/subgraph/{flow.name}")
    right = max(node.pos[0] + node.width for node in flow.nodes)
    inside_inputs, inside_outputs, outside_inputs, promoted, values = [], [], [], [], []
    for slot, (name, targets) in enumerate(inputs.items()):
        numbers = []
        for node, target in targets:
            number += 1
            numbers.append(number)
            place = next(index for index, entry in enumerate(nodes[node.id]["inputs"]) if entry["name"] == target)
            entry = nodes[node.id]["inputs"][place]
            entry["link"] = number
            links.append(dict(zip(keys, (number, INPUT_NODE, slot, node.id, place, entry["type"]), strict=True)))
        position = [-140, 60 + 20 * slot]
        inside_inputs.append({"id": str(uuid.uuid5(identity, f"in {name}")), "name": name, "type": entry["type"], "linkIds": numbers, "pos": position})
        if "widget" in entry:
            promoted.append(["-1", name])
            values.append(targets[0][0].values[targets[0][1]])
        else:
            outside_inputs.append({"name": name, "type": entry["type"], "link": None})
    for slot, (name, (node, output)) in enumerate(outputs.items()):
        number += 1
        kind = node.outputs[output][1]
        links.append(dict(zip(keys, (number, node.id, output, OUTPUT_NODE, slot, kind), strict=True)))
        written = nodes[node.id]["outputs"][output]
        written["links"] = [*(written["links"] or []), number]
        inside_outputs.append({"id": str(uuid.uuid5(identity, f"out {name}")), "name": name, "type": kind, "linkIds": [number], "pos": [right + 120, 60 + 20 * slot]})
    subgraph = {
        "id": str(identity), "version": 1, "revision": 0, "config": {}, "name": title,
        "state": {"lastGroupId": len(flow.groups), "lastNodeId": inner["last_node_id"], "lastLinkId": number, "lastRerouteId": 0},
        "inputNode": {"id": INPUT_NODE, "bounding": [-240, 40, 120, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [right + 100, 40, 120, 40 + 20 * len(outputs)]},
        "inputs": inside_inputs, "outputs": inside_outputs, "widgets": [], "nodes": inner["nodes"], "groups": inner["groups"], "links": links, "extra": {},
    }  # fmt: skip
    sockets = max(len(outside_inputs), len(outputs))
    outer = {
        "id": 1, "type": str(identity), "pos": [0, 0], "size": [340, 30 + 21 * sockets + 25 * len(values)], "flags": {}, "order": 0, "mode": ALWAYS,
        "inputs": outside_inputs, "outputs": [{"name": name, "type": node.outputs[output][1], "links": None} for name, (node, output) in outputs.items()],
        "title": title, "properties": {"proxyWidgets": promoted, "cnr_id": PACK}, "widgets_values": values,
    }  # fmt: skip
    return {
        "id": inner["id"], "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [outer], "links": [], "groups": [],
        "definitions": {"subgraphs": [subgraph]}, "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def flattened(workflow: dict[str, Any]) -> dict[str, Any]:
    """The nodes of each subgraph in its place, numbered `outer:inner` as the front end does; one level."""
    definitions = {entry["id"]: entry for entry in workflow.get("definitions", {}).get("subgraphs", [])}
    nodes, links = [], [list(link) for link in workflow["links"]]
    for outer in workflow["nodes"]:
        if outer["type"] not in definitions:
            nodes.append(outer)
            continue
        inside = definitions[outer["type"]]
        names = [entry["name"] for entry in inside["inputs"]]
        arriving = {entry["name"]: entry["link"] for entry in outer["inputs"]}
        values = dict(zip((name for _, name in outer["properties"]["proxyWidgets"]), outer["widgets_values"], strict=True))
        inner = {node["id"]: {**node, "id": f"{outer['id']}:{node['id']}", "inputs": [dict(entry) for entry in node["inputs"]]} for node in inside["nodes"]}
        for link in inside["links"]:
            number = f"{outer['id']}:{link['id']}"
            if link["origin_id"] == INPUT_NODE:
                name, entry = names[link["origin_slot"]], inner[link["target_id"]]["inputs"][link["target_slot"]]
                entry["link"] = arriving.get(name)
                if name in values:
                    inner[link["target_id"]].setdefault("overrides", {})[entry["name"]] = values[name]
            elif link["target_id"] == OUTPUT_NODE:
                for leaving in links:
                    if leaving[1:3] == [outer["id"], link["target_slot"]]:
                        leaving[1:3] = [inner[link["origin_id"]]["id"], link["origin_slot"]]
            else:
                inner[link["target_id"]]["inputs"][link["target_slot"]]["link"] = number
                links.append([number, inner[link["origin_id"]]["id"], link["origin_slot"], inner[link["target_id"]]["id"], link["target_slot"], link["type"]])
        nodes += inner.values()
    return {**workflow, "nodes": nodes, "links": links}
