"""Splits a fixture as the Python package `gguf` splits a file: metadata in the first part, tensors in all of them.

    python tests/reference/split_gguf.py

core/src/model/testdata/gguf-split   tests/fixtures/gguf-mistral in parts
"""

import pathlib

import gguf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WHOLE = ROOT / "tests/fixtures/gguf-mistral/model.gguf"
PARTS = ROOT / "core/src/model/testdata/gguf-split"


def split(whole, folder, tensors):
    reader = gguf.GGUFReader(whole)
    architecture = reader.get_field("general.architecture").contents()
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / "split.gguf", architecture, split_max_tensors=tensors)
    for name, field in reader.fields.items():
        # The writer has these of its own.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=of)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    split(WHOLE, PARTS, 9)
