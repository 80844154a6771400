"""Model directories that nobody has published yet, varied in what may vary, and what should become of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stub_packages import GREEDY

VOCAB, HIDDEN = 1000, 64
EMBED = "model.embed_tokens.weight.bfloat16.bin"
BYTES = VOCAB * HIDDEN * 2


def build(
    folder: str, prefix: str = "qwen3_p128", count: int = 4, number: str = "%d", embed: str = EMBED
) -> dict[str, Any]:
    """Layers, head and embedding of one build in `folder` ("" or "name/")."""
    head = prefix.rpartition("_p")[0] or prefix
    return {
        f"{folder}{prefix}_l{number}_together.axmodel": (count, 4096),
        f"{folder}{head}_post.axmodel": 8192,
        f"{folder}{embed}": BYTES,
    }


def hf(folder: str) -> dict[str, Any]:
    """A Hugging Face tokenizer in `folder`."""
    return {f"{folder}tokenizer.json": None, f"{folder}tokenizer_config.json": None}


def config(**changes: Any) -> dict[str, Any]:
    """A runner's config.json of the flat layout."""
    values = {
        "model_name": "AXERA-TECH/Qwen3-9B", "url_tokenizer_model": "qwen3_tokenizer.txt", "tokenizer_type": "Qwen3",
        "post_config_path": "post_config.json", "template_filename_axmodel": "qwen3_p128_l%d_together.axmodel",
        "axmodel_num": 4, "filename_post_axmodel": "qwen3_post.axmodel", "filename_tokens_embed": EMBED,
        "tokens_embed_num": VOCAB, "tokens_embed_size": HIDDEN, "devices": [0],
    }  # fmt: skip
    return {key: value for key, value in (values | changes).items() if value is not None}


FLAT = {**build(""), "config.json": config(), "post_config.json": GREEDY, "qwen3_tokenizer.txt": None}
OLD = {**build("qwen3-9b-ax650/"), **hf("qwen3_tokenizer/"), "config.json": "", "post_config.json": GREEDY}
TWO_TOKENIZERS = {**OLD, **hf("qwen2.5_tokenizer/")}
RUN = (
    './main_axcl_aarch64 \\\n--template_filename_axmodel "qwen3-9b-ax650/qwen3_p128_l%d_together.axmodel" \\\n'
    '--axmodel_num {} \\\n--url_tokenizer_model "http://127.0.0.1:12345" \\\n--tokens_embed_num {} \\\n'
    "--tokens_embed_size {} \\\n--devices 0\n"
)
HF_CONFIG = {"model_type": "qwen3", "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": 4}


def without(files: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in files.items() if name not in names}


EMBEDS: dict[str, dict[str, Any]] = {
    "by its key": FLAT | {"config.json": config(is_embedding=True)},
    "by its folders": {**OLD, "qwen3_tokenizer/config_sentence_transformers.json": {}},
    "by its pooling": {**OLD, "qwen3_tokenizer/1_Pooling/config.json": {}},
}
"""Embedding models."""

OPENS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: files, directory given, layers' directory from there, tokenizer from there
    "flat": (FLAT, "", ".", "qwen3_tokenizer.txt"),
    "old": (OLD, "", "qwen3-9b-ax650", "qwen3_tokenizer"),
    "old, layers' folder given": (OLD, "qwen3-9b-ax650", ".", "../qwen3_tokenizer"),
    "no config.json at all": (without(OLD, "config.json"), "", "qwen3-9b-ax650", "qwen3_tokenizer"),
    "blank config.json": (OLD | {"config.json": " \n"}, "", "qwen3-9b-ax650", "qwen3_tokenizer"),
    "a future model of an unheard family": (
        {**build("Falcon9-2B-AX8850/", "falcon9"), **hf("Falcon9_tokenizer/")}, "", "Falcon9-2B-AX8850",
        "Falcon9_tokenizer",
    ),
    "other capitalisation": (
        {
            "QWEN3-9B-AX650N/QWEN3_P128_L%d_TOGETHER.AXMODEL": (4, 4096), "QWEN3-9B-AX650N/QWEN3_POST.AXMODEL": 4096,
            "QWEN3-9B-AX650N/MODEL.EMBED_TOKENS.WEIGHT.BFLOAT16.BIN": BYTES, **hf("QWEN3_Tokenizer/"),
        }, "", "QWEN3-9B-AX650N", "QWEN3_Tokenizer",
    ),
    "config.json in other letters than the files": (
        FLAT | {"config.json": config(template_filename_axmodel="Qwen3_P128_l%d_together.AxModel",
                                      filename_post_axmodel="QWEN3_POST.axmodel")}, "", ".", "qwen3_tokenizer.txt",
    ),
    "spaces in every name": (
        {**build("qwen3 9b ax650/"), **hf("qwen3 tokenizer/")}, "", "qwen3 9b ax650", "qwen3 tokenizer",
    ),
    "a package within the directory": (
        {f"download/{name}": value for name, value in FLAT.items()}, "", "download", "download/qwen3_tokenizer.txt",
    ),
    "an old package two directories down": (
        {f"a/Qwen3-9B/{name}": value for name, value in OLD.items()}, "", "a/Qwen3-9B/qwen3-9b-ax650",
        "a/Qwen3-9B/qwen3_tokenizer",
    ),
    "layers deeper than the tokenizer": (
        {**build("models/ax650/"), **hf("tokenizer/"), "config.json": ""}, "", "models/ax650", "tokenizer",
    ),
    "the hub's cache": (
        {"refs/main": "0" * 40, **{f"snapshots/{'0' * 40}/{name}": value for name, value in FLAT.items()},
         **{f"snapshots/{'1' * 40}/{name}": value for name, value in FLAT.items()}},
        "", f"snapshots/{'0' * 40}", f"snapshots/{'0' * 40}/qwen3_tokenizer.txt",
    ),
    "metadata of a download": (
        {**OLD, ".cache/huggingface/download/qwen3-9b-ax650/qwen3_p128_l0_together.axmodel.metadata": "x",
         ".cache/huggingface/download/x/qwen3_p64_l0_together.axmodel": 10, ".git/x/a_l0_together.axmodel": 10},
        "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "two chips": (
        {**OLD, **build("qwen3-9b-ax630c/")}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "two chips, the vendor's other spelling": (
        {**build("gpt-ax620e_axmodel/"), **build("gpt-ax650n_axmodel/"), **hf("gpt_tokenizer/")}, "",
        "gpt-ax650n_axmodel", "gpt_tokenizer",
    ),
    "another chip beside a folder that tells none": (
        {**build("Qwen3-9B-context-4k/"), **build("Qwen3-9B-AX620Q/"), **hf("qwen3_tokenizer/")}, "",
        "Qwen3-9B-context-4k", "qwen3_tokenizer",
    ),
    "a build in the root and one below, no config.json": (
        {**build(""), **build("more-ax650/"), **hf("tokenizer/")}, "", ".", "tokenizer",
    ),
    "the build below, given": (
        {**FLAT, **build("C256/", "qwen3_p256")}, "C256", ".", "../qwen3_tokenizer.txt",
    ),
    "two builds, one of them pulled": (
        {**OLD, "qwen3-9b-int4-ax650/qwen3_p128_l0_together.axmodel": "pointer",
         "qwen3-9b-int4-ax650/qwen3_p128_l1_together.axmodel": "pointer"}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "layers renamed after config.json was written": (
        {**build("renamed-ax650/"), **hf("tokenizer/"),
         "config.json": config(template_filename_axmodel="gone/qwen3_p128_l%d_together.axmodel",
                               filename_post_axmodel="gone/qwen3_post.axmodel", filename_tokens_embed=None,
                               post_config_path=None, url_tokenizer_model=None)}, "", "renamed-ax650", "tokenizer",
    ),
    "numbers with zeros in front": (
        {**build("", number="%02d", count=12), **hf("tokenizer/"),
         "config.json": config(template_filename_axmodel="qwen3_p128_l%02d_together.axmodel", axmodel_num=12,
                               post_config_path=None, url_tokenizer_model="http://127.0.0.1:8080")}, "", ".",
        "tokenizer",
    ),
    "numbers with zeros in front, no config.json": (
        {**build("x-ax650/", number="%02d", count=12), **hf("tokenizer/")}, "", "x-ax650", "tokenizer",
    ),
    "no chunk in the names": (
        {"qwen3_l%d.axmodel": (4, 4096), "qwen3_post.axmodel": 4096, EMBED: BYTES, **hf("tokenizer/")}, "", ".",
        "tokenizer",
    ),
    "no axmodel_num": (FLAT | {"config.json": config(axmodel_num=None)}, "", ".", "qwen3_tokenizer.txt"),
    "a post model more": (FLAT | {"qwen3_post_topk.axmodel": 4096, "config.json": config(filename_post_axmodel=None)},
                          "", ".", "qwen3_tokenizer.txt"),
    "several forms of the embedding": (
        {**FLAT, "model.embed_tokens.weight.npy": (VOCAB, HIDDEN), "model.embed_tokens.weight.float32.bin": 2 * BYTES,
         "model.embed_tokens.weight.float16.bin": BYTES, "config.json": config(filename_tokens_embed=None)},
        "", ".", "qwen3_tokenizer.txt",
    ),
    "the embedding as .npy only": (
        {**without(OLD, f"qwen3-9b-ax650/{EMBED}"), "qwen3-9b-ax650/model.embed_tokens.weight.npy": (VOCAB, HIDDEN)},
        "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "the embedding in a folder of its own": (
        {**without(OLD, f"qwen3-9b-ax650/{EMBED}"), f"embeds/{EMBED}": BYTES}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "the embedding beside the builds' folders": (
        {**without(OLD, f"qwen3-9b-ax650/{EMBED}"), EMBED: BYTES}, "qwen3-9b-ax650", ".", "../qwen3_tokenizer",
    ),
    "two tokenizers: the layers' family": (TWO_TOKENIZERS, "", "qwen3-9b-ax650", "qwen3_tokenizer"),
    "two tokenizers: layers of the other family": (
        {**build("x-ax650/", "qwen2_p128"), **hf("qwen2.5_tokenizer/"), **hf("qwen3_tokenizer/")}, "", "x-ax650",
        "qwen2.5_tokenizer",
    ),
    "two tokenizers: a script's text": (
        {**build("m-ax650/", "llama_p128"), **hf("a_tok/"), **hf("b_tok/"), "run.sh": "./main --tokenizer ./b_tok/\n"},
        "", "m-ax650", "b_tok",
    ),
    "two tokenizers: a script against the names": (
        TWO_TOKENIZERS | {"run_ax650.sh": "python3 qwen2.5_tokenizer_uid.py --port 12345 &\n"}, "", "qwen3-9b-ax650",
        "qwen2.5_tokenizer",
    ),
    "two tokenizers: the tokenizer program's name": (
        {**build("m-ax650/", "llama_p128"), **hf("a_tokenizer/"), **hf("b_tokenizer/"), "b_tokenizer_uid.py": "#"}, "",
        "m-ax650", "b_tokenizer",
    ),
    "two tokenizers: ids beyond the embedding": (
        {**build("m-ax650/", "llama_p128"), **hf("a_tok/"), **hf("b_tok/"),
         "a_tok/tokenizer_config.json": {"added_tokens_decoder": {"5000": {"content": "<|end|>"}}},
         "run.sh": RUN.format(4, VOCAB, HIDDEN).replace("qwen3-9b-ax650/qwen3", "m-ax650/llama")}, "", "m-ax650",
        "b_tok",
    ),
    "two tokenizers: the original's sizes": (
        {**build("m-ax650/", "llama_p128"), **hf("a_tok/"), **hf("b_tok/"), "b_tok/config.json": HF_CONFIG,
         "a_tok/config.json": HF_CONFIG | {"hidden_size": 128}}, "", "m-ax650", "b_tok",
    ),
    "two tokenizers: the family in config.json": (
        {**build("", "llama_p128"), **hf("minicpm5_tokenizer/"), **hf("llama3_tokenizer/"),
         "config.json": {"tokenizer_type": "MiniCPM5"}}, "", ".", "minicpm5_tokenizer",
    ),
    "two tokenizers: a version that needs its punctuation": (
        {**build("Qwen3-5B-AX650/", "qwen3_p128"), **hf("qwen3_tokenizer/"), **hf("qwen3.5_tokenizer/")}, "",
        "Qwen3-5B-AX650", "qwen3_tokenizer",
    ),
    "two .txt tokenizers": (
        {**build(""), "qwen2.5_tokenizer.txt": None, "qwen3_tokenizer.txt": None,
         "config.json": config(url_tokenizer_model=None, post_config_path=None)}, "", ".", "qwen3_tokenizer.txt",
    ),
    "config.json names one of two": (
        TWO_TOKENIZERS | {"config.json": {"url_tokenizer_model": "qwen2.5_tokenizer"}}, "", "qwen3-9b-ax650",
        "qwen2.5_tokenizer",
    ),
    "both forms of one tokenizer": ({**FLAT, **hf("qwen3_tokenizer/")}, "", ".", "qwen3_tokenizer"),
    "a .txt beside another family's folder": ({**FLAT, **hf("qwen2.5_tokenizer/")}, "", ".", "qwen3_tokenizer.txt"),
    "a .txt beside a folder of old things": (
        {**FLAT, **hf("python_backup/Qwen3-9B/")}, "", ".", "qwen3_tokenizer.txt",
    ),
    "tokenizer named one directory up": (
        {"t/qwen3_tokenizer.txt": None, **{f"t/m/{k}": v for k, v in without(FLAT, "qwen3_tokenizer.txt").items()},
         "t/m/config.json": config(url_tokenizer_model="../qwen3_tokenizer.txt")}, "t/m", ".", "../qwen3_tokenizer.txt",
    ),
    "tokenizer.json named itself": (
        {**build(""), **hf("files/"), "config.json": config(url_tokenizer_model="files/tokenizer.json",
                                                            post_config_path=None)}, "", ".", "files",
    ),
    "StackFlow, its mode among the modes": (
        {**{f"data/qwen3-9B-Int4-ax650/{name}": value for name, value in (build("") | hf("tokenizer/")).items()},
         "data/models/mode_qwen3-9B-Int4-ax650.json": {
             "mode": "qwen3-9B-Int4-ax650", "type": "llm", "mode_param": config(
                 tokenizer_type=2, url_tokenizer_model="http://localhost:8080", b_bos=False, post_config_path=None,
                 filename_image_encoder_axmodel="")}}, "data/qwen3-9B-Int4-ax650", ".", "tokenizer",
    ),
    "names that sound like other kinds": (
        FLAT | {"config.json": config(model_name="Gemma-like Qwen3.5 vision whisper 512ctx",
                                      filename_image_encoder_axmodel="", vision_enabled=False, vlm_type="None",
                                      is_embedding=False, full_attention_interval=0, layer_types=[], sliding_window=0)},
        "", ".", "qwen3_tokenizer.txt",
    ),
    "a folder that sounds like another kind": (
        {f"vision-encoder-tests/{name}": value for name, value in OLD.items()}, "vision-encoder-tests",
        "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "Qwen's window, switched off": (
        {**OLD, "qwen3_tokenizer/config.json": {"model_type": "qwen2", "sliding_window": 32768, "max_window_layers": 21,
                                                "use_sliding_window": False}}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "another model in the directory above": (
        {**{f"m/Qwen3-9B/{name}": value for name, value in (build("") | hf("tokenizer/")).items()},
         "m/whisper/whisper-encoder.axmodel": 10, "m/config.json": {"vision_config": {"x": 1}}}, "m/Qwen3-9B", ".",
        "tokenizer",
    ),
    "programs that were not pulled": (
        {**OLD, "main_axcl_aarch64": "pointer", "bin/axllm": "pointer"}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "one of two precisions, given with a slash": (
        {**OLD, **build("Qwen3-9B-w4a16-AX650/"), **build("Qwen3-9B-w8a16-AX650/")}, "Qwen3-9B-w4a16-AX650/", ".",
        "../qwen3_tokenizer",
    ),
    "a script with Windows' line ends": (
        {**OLD, "run.cmd.sh": RUN.format(4, VOCAB, HIDDEN).replace("\n", "\r\n")}, "", "qwen3-9b-ax650",
        "qwen3_tokenizer",
    ),
    "a window that the original's configuration leaves out": (
        {**OLD, "qwen3_tokenizer/config.json": HF_CONFIG | {"model_type": "mistral", "sliding_window": None}}, "",
        "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "experts, which are within the layers": (
        {**OLD, "qwen3_tokenizer/config.json": HF_CONFIG | {"model_type": "qwen3_moe", "num_experts": 128}}, "",
        "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "what a Mac leaves in an archive": (
        {**OLD, "qwen3-9b-ax650/._qwen3_p128_l0_together.axmodel": 99, "__MACOSX/x/._qwen3_post.axmodel": 9}, "",
        "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
    "no sampling defaults, though they are named": (
        without(FLAT, "post_config.json"), "", ".", "qwen3_tokenizer.txt",
    ),
    "another Chinese name": (
        {**build("通义-ax650/"), **hf("通义 tokenizer/")}, "", "通义-ax650", "通义 tokenizer",
    ),
    "layers of two precisions": (
        {**OLD, "qwen3-9b-ax650/qwen3_p128_l0_together.axmodel": 2100, "qwen3-9b-ax650/qwen3_p128_l3_together.axmodel":
         2110, "post_config.json": GREEDY}, "", "qwen3-9b-ax650", "qwen3_tokenizer",
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: files, directory given, words of the reason
    "two builds": (
        {**OLD, **build("qwen3-9b-int4-ax650/")}, "", r"several models \(qwen3-9b-ax650, qwen3-9b-int4-ax650\)",
    ),
    "two packages": (
        {f"{folder}/{name}": value for folder in "ab" for name, value in FLAT.items()}, "", r"several models \(a, b\)",
    ),
    "only another chip": (
        {**build("x-ax630c/"), **hf("t/")}, "", r"x-ax630c is compiled for the AX630C.*AX650",
    ),
    "another chip, its folder given": ({**OLD, **build("qwen3-9b-ax630c/")}, "qwen3-9b-ax630c", r"for the AX630C"),
    "another chip in StackFlow's name": ({**build(""), **hf("tokenizer/"), "mode_x.json": {
        "mode": "llama3.2-1B-ax630c", "mode_param": {"axmodel_num": 4}}}, "", r"for the AX630C"),
    "two tokenizers, nothing tells": (
        {**build("m-ax650/", "llama_p128"), **hf("a/"), **hf("b/")}, "",
        r"several tokenizers \(a, b\).*url_tokenizer_model",
    ),
    "no layers, only what is around them": (
        {**hf("qwen3_tokenizer/"), "config.json": "", "main_ax650": "pointer", EMBED: 10}, "",
        r"no \.\.\._l0_together\.axmodel",
    ),
    "a clone without LFS": (
        {**{name: "pointer" for name in build("qwen3-9b-ax650/") if "%d" not in name}, **{
            f"qwen3-9b-ax650/qwen3_p128_l{n}_together.axmodel": "pointer" for n in range(4)}, **hf("qwen3_tokenizer/"),
         "qwen3_tokenizer/tokenizer.json": "pointer"}, "",
        r"_l0_together.axmodel is a Git LFS pointer.*1048576 bytes.*6 more files: run `git lfs pull`",
    ),
    "the .txt tokenizer not pulled": (FLAT | {"qwen3_tokenizer.txt": "pointer"}, "", r"_tokenizer\.txt.*git lfs pull"),
    "a layer missing": (
        {**{k: v for k, v in OLD.items() if "%d" not in k}, **{
            f"qwen3-9b-ax650/qwen3_p128_l{n}_together.axmodel": 4096 for n in (0, 1, 3)}}, "",
        r"_l2_.* missing: layer 2 of 4",
    ),
    "the last layer missing, told by the run script": (
        OLD | {"run_axcl.sh": RUN.format(5, VOCAB, HIDDEN)}, "", r"_l4_together\.axmodel is missing: layer 4 of 5",
    ),
    "the last layer missing, told by the original's configuration": (
        OLD | {"qwen3_tokenizer/config.json": HF_CONFIG | {"num_hidden_layers": 6}}, "", r"layer 4 of 6 and 1 more",
    ),
    "a layer too many": (
        FLAT | {"qwen3_p128_l4_together.axmodel": 4096}, "", r"axmodel_num 4.*_l4_together.*is there too",
    ),
    "layers in two directories": (
        {f"part1/qwen3_p128_l{n}_together.axmodel": 10 for n in (0, 1)} | {
            f"part2/qwen3_p128_l{n}_together.axmodel": 10 for n in (2, 3)}, "",
        r"0 to 1 in .*part1, 2 to 3 in .*part2.*move",
    ),
    "a layer cut short": (
        {**OLD, "qwen3-9b-ax650/qwen3_p128_l2_together.axmodel": 2000, "x": 1}, "", r"_l2_.*cut short",
    ),
    "an embedding cut short, told by the run script": (
        OLD | {"run_axcl.sh": RUN.format(4, VOCAB + 1, HIDDEN)}, "", r"embed_tokens.*a vocabulary of 1001",
    ),
    "two heads": (
        {**without(OLD, "qwen3-9b-ax650/qwen3_post.axmodel"), "qwen3-9b-ax650/a_post.axmodel": 9,
         "qwen3-9b-ax650/b_post.axmodel": 9}, "", r"could be the head \(a_post\.axmodel, b_post\.axmodel\)",
    ),
    "the named head missing": (
        FLAT | {"config.json": config(filename_post_axmodel="x_post.axmodel")}, "", r"x_post\.axmodel is missing",
    ),
    "no head": (without(OLD, "qwen3-9b-ax650/qwen3_post.axmodel"), "", r"no \*_post\.axmodel"),
    "no embedding": (without(OLD, f"qwen3-9b-ax650/{EMBED}"), "", r"embedding.* missing"),
    "only parts of a tokenizer": (
        {**build("x-ax650/"), "t/vocab.json": None, "t/merges.txt": None}, "", r"no tokenizer.*tokenizer\.json",
    ),
    "the named tokenizer missing": (
        without(FLAT, "qwen3_tokenizer.txt"), "",
        r"no tokenizer.*qwen3_tokenizer\.txt.*config\.json names, is missing.*copy",
    ),
    "someone else's tokenizer in the directory above": (
        {**{f"m/mine/{name}": value for name, value in build("", "qwen3_p128").items()}, **hf("m/Llama-3-8B/"),
         **hf("m/qwen2.5_tokenizer/")}, "m/mine", r"no tokenizer",
    ),
    "vision by an encoder beside": (
        {**OLD, "qwen3-9b-ax650/Qwen3_Vision.axmodel": 9}, "", r"Qwen3_Vision\.axmodel.*vision"),
    "vision by a folder beside, the layers' given": (
        {**OLD, "vit-models/part.axmodel": 9}, "qwen3-9b-ax650", r"vit-models.*vision"),
    "vision by vit in a name": ({**OLD, "qwen3-9b-ax650/m_vit.axmodel": 9}, "", r"m_vit\.axmodel.*vision"),
    "vision by the layers' names": ({**build("x-ax650/", "qwen9_vl_p128"), **hf("t/")}, "", r"_vl_"),
    "vision by the preprocessor": ({**OLD, "qwen3_tokenizer/preprocessor_config.json": {}}, "", r"preprocessor_config"),
    "vision by vlm_type": (FLAT | {"config.json": config(vlm_type=2)}, "", r"config\.json.*vision.*vlm_type"),
    "vision by the type of tokenizer": (FLAT | {"config.json": config(tokenizer_type="Qwen9VL")}, "", r"Qwen9VL"),
    "vision by the original's configuration": (
        OLD | {"config.json": {"architectures": ["XForCausalLM"], "vision_config": {"d": 3}}}, "", r"vision_config"),
    "vision deep in the original's configuration": (
        OLD | {"config.json": {"llm_config": {"vision_config": {"depth": 3}}}}, "", r"vision_config"),
    "StackFlow's vision": ({**build(""), **hf("tokenizer/"), "mode_x.json": {
        "mode": "x", "type": "vlm", "mode_param": {"axmodel_num": 4}}}, "", r"vision.*type"),
    "an encoder of something": ({**OLD, "encoder/model_encoder.axmodel": 9}, "", r"encoder of images or sound"),
    "speech by an encoder": ({**OLD, "audio_encoder.axmodel": 9}, "", r"audio_encoder\.axmodel.*speech"),
    "speech without layers": ({"whisper-encoder.axmodel": 9, "whisper-decoder-main.axmodel": 9}, "", r"speech model"),
    "speech by a key": (FLAT | {"config.json": config(filename_audio_encoder_axmodel_30s="a.axmodel")}, "", r"speech"),
    "an architecture that is no language model": (
        OLD | {"config.json": {"architectures": ["Qwen9ForSequenceClassification"]}}, "", r"SequenceClassification"),
    "embedding of another family": (
        {**build("", "bert_p128"), "config.json": config(
            template_filename_axmodel="bert_p128_l%d_together.axmodel", filename_post_axmodel="bert_post.axmodel",
            is_embedding=True), "post_config.json": GREEDY, "qwen3_tokenizer.txt": None},
        "", r"embedding model of the family bert.*Qwen3-Embedding"),
    "embedding by another's keys": (
        FLAT | {"config.json": config(encoder_axmodels="a.axmodel")}, "", r"embedding model.*encoder_axmodels"),
    "recurrent by layer_types": (
        FLAT | {"config.json": config(layer_types=["linear_attention"] * 3 + ["full_attention"])}, "",
        r"linear_attention"),
    "recurrent in text_config": (
        FLAT | {"config.json": config(text_config={"full_attention_interval": 4})}, "", r"full_attention_interval"),
    "windows by layer_types": (
        FLAT | {"config.json": config(layer_types=["sliding_attention", "full_attention"])}, "",
        r"sliding-window layers and no size"),
    "windows by a size": (FLAT | {"config.json": config(sliding_window=512)}, "", r"sliding_window 512"),
    "windows told beside the tokenizer only": (
        {**FLAT, "gemma_tokenizer/config.json": {"sliding_window": 512}}, "",
        r"gemma_tokenizer/config\.json.*sliding_window"),
    "shared keys and values": (FLAT | {"config.json": config(num_kv_shared_layers=20)}, "", r"num_kv_shared_layers 20"),
    "inputs for each layer": (FLAT | {"config.json": config(hidden_size_per_layer_input=256)}, "", r"per_layer_input"),
    "split over cards": (
        {"tp/qwen2_p128_l%d_together.tar": (4, 99), "tp/qwen2_post.tar": 9, **hf("t/")}, "",
        r"_l0_together\.tar.*several cards"),
    "an uncompiled checkpoint": ({"model.safetensors": 99, "config.json": HF_CONFIG, **hf("")}, "", r"axpress convert"),
    "a GGUF": ({"model-q4.gguf": 99}, "", r"model-q4\.gguf is a GGUF"),
    "layers that were not unpacked": (
        {"qwen3-9b-ax650.tar.gz": 99, **hf("qwen3_tokenizer/")}, "", r"qwen3-9b-ax650\.tar\.gz is packed: unpack it"),
    "speech by its embedding": (
        {**OLD, "qwen3-9b-ax650/llm.speech_embedding.float16.bin": 9}, "qwen3-9b-ax650", r"speech model"),
    "vision by a resampler": ({**OLD, "vpm/vpm_resampler.axmodel": 9}, "", r"vpm_resampler\.axmodel.*vision"),
    "a window, told by the original's configuration": (
        {**OLD, "qwen3_tokenizer/config.json": HF_CONFIG | {"model_type": "mistral", "sliding_window": 4096}}, "",
        r"sliding_window 4096"),
    "images": ({"unet.axmodel": 9, "vae_decoder.axmodel": 9}, "", r"makes images"),
}  # fmt: skip
