"""As much of a web UI as the pack asks for, without one. `test_fake_host.py` holds all of it against the sources of the real hosts:
HOME says where each class and function stands there, NAMES what else is used, and ORDERS in which order the host calls."""

from __future__ import annotations

import sys
import threading
import types

HOME = {
    "ExtraNetwork": "modules/extra_networks.py",
    "ExtraNetworkParams": "modules/extra_networks.py",
    "register_extra_network": "modules/extra_networks.py",
    "ExtraNetworksPage": "modules/ui_extra_networks.py",
    "register_page": "modules/ui_extra_networks.py",
    "quote_js": "modules/ui_extra_networks.py",
    "OptionInfo": "modules/options.py",
    "options_section": "modules/options.py",
    "Script": "modules/scripts.py",
    "State": "modules/shared_state.py",
    "StableDiffusionProcessing": "modules/processing.py",
    "CFGDenoiserParams": "modules/script_callbacks.py",
    "on_app_started": "modules/script_callbacks.py",
    "on_before_ui": "modules/script_callbacks.py",
    "on_cfg_denoiser": "modules/script_callbacks.py",
    "on_model_loaded": "modules/script_callbacks.py",
    "on_script_unloaded": "modules/script_callbacks.py",
    "on_ui_tabs": "modules/script_callbacks.py",
    "AxisOption": "scripts/xyz_grid.py",
    "run_pip": "modules/launch_utils.py",
}
NAMES = {
    "modules/shared.py": ["opts", "cmd_opts", "state", "sd_model", "options_templates", "options_section", "OptionInfo"],
    "modules/paths.py": ["models_path"],
    "modules/scripts.py": ["AlwaysVisible", "scripts_data"],
    "modules/call_queue.py": ["queue_lock"],
    "scripts/xyz_grid.py": ["axis_options"],
    "launch.py": ["run_pip"],
}
#: A function of the host → what it calls, in this order; other calls may stand between.
ORDERS = {
    ("modules/processing.py", "process_images"): ["p.scripts.before_process", "process_images_inner"],
    ("modules/processing.py", "process_images_inner"): ["p.parse_extra_network_prompts", "extra_networks.activate", "p.sample", "extra_networks.deactivate"],
    # The second pass activates again, and the end that follows is that of the first.
    ("modules/processing.py", "sample_hr_pass"): ["extra_networks.activate", "self.sampler.sample_img2img"],
    # Every network that the prompt does not name is activated too, with nothing; an error there is shown and the picture is made.
    ("modules/extra_networks.py", "activate"): ["extra_network.activate", "errors.display", "extra_network.activate", "errors.display"],
    ("modules/extra_networks.py", "deactivate"): ["extra_network.deactivate", "extra_network.deactivate"],
    ("modules/sd_samplers_cfg_denoiser.py", "forward"): ["CFGDenoiserParams", "cfg_denoiser_callback"],
}


class ExtraNetwork:
    def __init__(self, name):
        self.name = name

    def activate(self, p, params_list):
        raise NotImplementedError

    def deactivate(self, p):
        raise NotImplementedError


class ExtraNetworkParams:
    def __init__(self, items=None):
        self.items = items or []


def params(tag):
    """What the host hands over of `<sparsedict:TAG>`."""
    return ExtraNetworkParams(items=tag.split(":"))


def register_extra_network(extra_network):
    registered["networks"].append(extra_network)


class ExtraNetworksPage:
    def __init__(self, title):
        self.title = title
        self.name = title.lower()

    def refresh(self):
        pass

    def read_user_metadata(self, item, use_cache=True):
        item["user_metadata"] = {}

    def search_terms_from_path(self, filename, possible_directories=None):
        return filename

    def create_item(self, name, index=None):
        raise NotImplementedError

    def list_items(self):
        raise NotImplementedError

    def allowed_directories_for_previews(self):
        return []

    def get_sort_keys(self, path):
        return {"name": path.lower()}

    def find_preview(self, path):
        return None

    def find_description(self, path):
        return None


def register_page(page):
    registered["pages"].append(page)


def quote_js(s):
    s = s.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{s}"'


class OptionInfo:
    def __init__(
        self, default=None, label="", component=None, component_args=None, onchange=None, section=None, refresh=None, comment_before="", comment_after="",
        infotext=None, restrict_api=False, category_id=None,
    ):  # fmt: skip
        self.default = default


def options_section(section_identifier, options_dict):
    return options_dict


class Script:
    def title(self):
        raise NotImplementedError

    def ui(self, is_img2img):
        pass

    def show(self, is_img2img):
        return True

    def before_process(self, p, *args):
        pass


class State:
    interrupted = False

    def begin(self, job="(unknown)"):
        self.job = job

    def end(self):
        self.job = ""


class StableDiffusionProcessing:
    def __init__(self, model):
        """Not as the host's, which is a dataclass: what it has when a picture is made."""
        self.sd_model = types.SimpleNamespace(model=types.SimpleNamespace(diffusion_model=model))
        self.extra_generation_params, self.comments = {}, {}

    def comment(self, text):
        self.comments[text] = 1


class CFGDenoiserParams:
    def __init__(self, x, image_cond, sigma, sampling_step, total_sampling_steps, text_cond, text_uncond, denoiser=None):
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps


class AxisOption:
    def __init__(self, label, type, apply, format_value=None, confirm=None, cost=0.0, choices=None, prepare=None):
        self.label, self.type, self.apply, self.choices = label, type, apply, choices


def on_app_started(callback, *, name=None):
    registered["app_started"].append(callback)


def on_before_ui(callback, *, name=None):
    registered["before_ui"].append(callback)


def on_cfg_denoiser(callback, *, name=None):
    registered["cfg_denoiser"].append(callback)


def on_model_loaded(callback, *, name=None):
    registered["model_loaded"].append(callback)


def on_script_unloaded(callback, *, name=None):
    registered["script_unloaded"].append(callback)


def on_ui_tabs(callback, *, name=None):
    registered["ui_tabs"].append(callback)


def run_pip(command, desc=None, live=False):
    raise NotImplementedError  # test_install.py has a program in its place


registered: dict[str, list] = {}


def install(monkeypatch, folder, options):
    """The host's packages in `sys.modules`, with `folder` for adapters; returns its `shared`."""
    registered.clear()
    registered.update({name: [] for name in ("networks", "pages", "app_started", "before_ui", "cfg_denoiser", "model_loaded", "script_unloaded", "ui_tabs")})
    here = sys.modules[__name__]
    plot = types.SimpleNamespace(AxisOption=AxisOption, axis_options=[AxisOption("Seed", int, None)])
    package = types.ModuleType("modules")
    package.shared = types.SimpleNamespace(
        opts=options, cmd_opts=types.SimpleNamespace(sparsedict_dir=str(folder)), state=State(), sd_model=None, options_templates={},
        options_section=options_section, OptionInfo=OptionInfo,
    )  # fmt: skip
    package.extra_networks = package.ui_extra_networks = package.script_callbacks = here
    package.paths = types.SimpleNamespace(models_path=str(folder))
    package.scripts = types.SimpleNamespace(Script=Script, AlwaysVisible=object(), scripts_data=[types.SimpleNamespace(module=here), types.SimpleNamespace(module=plot)])
    package.call_queue = types.ModuleType("modules.call_queue")
    package.call_queue.queue_lock = threading.Lock()
    monkeypatch.setitem(sys.modules, "modules", package)
    monkeypatch.setitem(sys.modules, "modules.call_queue", package.call_queue)
    return package.shared
