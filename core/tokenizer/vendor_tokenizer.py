"""Opens the vendor's tokenizer in one .txt file: reads it, finds its family, and says of it what the files of a Hugging
Face folder would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import PackageError
from ..files import read_json
from .families import ORIGINAL, Family, choose_family
from .tokenizer_files import TokenizerFiles
from .vendor_file import Kind, VendorFile, read_vendor_file
from .vendor_vocabulary import bert_spec, control_tokens, family_spec, token_text, within
from .vocabulary import JsonVocabulary


def is_vendor_file(path: Path) -> bool:
    """Whether `path` names a tokenizer in the vendor's text format."""
    return path.suffix == ".txt" and not path.is_dir()


def open_vendor_tokenizer(
    path: Path, tokenizer_type: str | None, embedding_rows: int | None
) -> tuple[TokenizerFiles, JsonVocabulary, str | None]:
    """What stands for the files of a Hugging Face folder, the vocabulary, and the family's chat template (None: it has
    none). A template beside `path` (chat_template.jinja, or in tokenizer_config.json) goes before the family's.

    Raises PackageError, naming the file and what to copy, if it is damaged, of an unknown family, or another model's.
    """
    file = within(read_vendor_file(path), embedding_rows)
    if file.kind is Kind.BERT:
        return _files(file, None), JsonVocabulary(path, spec=bert_spec(file)), None
    family = choose_family(path, tokenizer_type, control_tokens(file))
    vocabulary = JsonVocabulary(path, spec=family_spec(file, family))
    return _files(file, family), vocabulary, family.template()


def _files(file: VendorFile, family: Family | None) -> TokenizerFiles:
    control = control_tokens(file)
    ends = [control[token] for token in (family.ends if family else ()) if token in control]
    ends += [token_id for token_id in file.stops if token_id < len(file.tokens)]
    if not ends:
        raise PackageError(f"{file.path}: names no token that ends an answer; {ORIGINAL}")
    tells_prefix = file.kind is Kind.SENTENCEPIECE  # the converter leaves it out of the other kinds
    begin = family.bos if family else None
    config: dict[str, Any] = {
        "bos_token": token_text(file, file.prefix[0]) if file.prefix else begin,
        "eos_token": token_text(file, ends[0]),
        "add_bos_token": bool(file.prefix) if tells_prefix else family is not None and family.adds_bos,
        "chat_template": read_json(file.path.parent / "tokenizer_config.json", {}).get("chat_template"),
    }
    return TokenizerFiles(file.path, config, {}, {"eos_token_id": sorted(set(ends))})
