// The table of what can be found in a model file, and the list that examinations fill.
#include "soundness/finding.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace pb::soundness {
namespace {

constexpr Severity kNote = Severity::kNote, kWarning = Severity::kWarning, kError = Severity::kError;

constexpr std::string_view kFetchAgain =
    "Fetch the file again and compare its size and sha256 with its source's.";
constexpr std::string_view kConvertAgain =
    "Convert the checkpoint again, with a converter for its architecture.";
constexpr std::string_view kQuantiseAgain =
    "Quantise again from the F16 or F32 file; if that one has it too, convert the checkpoint again.";
constexpr std::string_view kNothing = "Nothing has to be mended.";

constexpr FindingKind kKinds[] = {
    // the file
    {"file-unreadable", kError, "No engine can open the file.", kFetchAgain},
    {"tensor-type", kError, "Where this tensor ends is unknown: no engine can read it.", kConvertAgain},
    {"tensor-foreign", kWarning,
     "Only the program that wrote the type reads it; nothing here can check the tensor's bytes.",
     "Convert the model into a type that `paritybit check-features` lists."},
    {"tensor-misaligned", kError, "Engines that map the file refuse it, or read beside the tensor.",
     kConvertAgain},
    {"tensor-beyond-file", kError, "The tensor's last values are missing: engines refuse the file.",
     kFetchAgain},
    {"tensor-overlap", kError, "One of the two tensors has the other's bytes for weights.", kConvertAgain},
    {"file-gap", kNote, "Bytes that no tensor has: engines pass over them.", kNothing},
    {"shards", kNote, "Engines load the set by its first file.",
     "Merge them where one file is needed: llama-gguf-split --merge FIRST OUT."},
    {"shard-missing", kError, "Tensors are missing: no engine can load the model.",
     "Put all files of the set into one folder, under the names that they were cut with."},
    {"shard-mismatch", kError, "The files are not of one set: engines refuse them, or mix two models.",
     "Fetch all files of the set again, from one revision."},
    // declarations
    {"metadata", kError, "Engines refuse the file, or take another value than the model has.", kConvertAgain},
    {"architecture-foreign", kNote,
     "Shapes, activation and vocabulary are not checked: nothing here runs the architecture.",
     "Compare two builds of an engine that runs it: --candidate and --reference llama.cpp."},
    {"not-offered", kNote, "The native engine does not run the model.",
     "Compare two builds of an engine that runs it: --candidate and --reference llama.cpp."},
    {"activation-undeclared", kWarning,
     "Engines guess between SiLU and squared ReLU, and the wrong one looks plausible.",
     "Put the checkpoint's config.json beside the file, or give --set ffn.activation=."},
    {"contradicted", kError, "One of the two is wrong, and whoever follows it computes another model.",
     "Correct the one that is wrong; --hf-config none leaves the config.json out."},
    {"contradicted-beyond", kWarning, "Texts that are longer than that are computed otherwise.",
     "Correct the one that is wrong; --hf-config none leaves the config.json out."},
    {"unheard", kWarning, "What it decides is computed by some engines and not by others.",
     "Ask the file's maker what it stands for; compare engines that claim to know it."},
    {"declared", kNote, "It decides nothing that is computed.", kNothing},
    {"file-type", kNote, "general.file_type is a label: engines go by the tensors' own types.", kNothing},
    {"rope-freqs-missing", kWarning,
     "LLaMA 3.1 and later stretch their rotation by these factors; without them long texts fall apart.",
     "Convert the checkpoint again with a converter of August 2024 or later."},
    // tensors
    {"tensor-missing", kError, "Engines refuse the file.", kConvertAgain},
    {"tensor-shape", kError, "Engines refuse the file, or read rows of the wrong length.", kConvertAgain},
    {"tensor-unknown", kWarning, "No op reads it: llama.cpp refuses the file, others compute without it.",
     kConvertAgain},
    {"output-twin", kNote, "The output matrix is the embedding written twice.", kNothing},
    // values
    {"not-finite", kError, "Every value that the weights enter becomes NaN or infinite.", kQuantiseAgain},
    {"not-finite-row", kWarning, "A text that has one of these tokens has no logits.", kQuantiseAgain},
    {"tensor-zero", kError, "What the tensor computes is lost.", kQuantiseAgain},
    {"rows-zero", kNote, "Rows of zeros are usual for tokens and features that training never used.",
     kNothing},
    {"scale-zero", kWarning, "Blocks with codes and a scale of 0: what they held has become 0.",
     kQuantiseAgain},
    {"norm-band", kWarning, "A norm far from what such models have: scaled, shifted, or another tensor's.",
     "Compare with the checkpoint (--hf DIR): converters add 1, or forget to."},
    {"norm-usual", kNote, "The documented band is one for generated weights; trained norms leave it.",
     kNothing},
    {"projection-band", kNote, "The documented band of a projection's RMS; the scale may be kept elsewhere.",
     "Compare with the checkpoint (--hf DIR): a scale divided instead of multiplied shows there."},
    // I2_S
    {"i2s-code3", kError, "No arrangement of I2_S has code 3: damage, or another format under type 36.",
     kFetchAgain},
    {"i2s-scale", kError, "The whole tensor is multiplied by it.", kConvertAgain},
    {"i2s-trailer", kWarning, "Of the known writers one repeats the scale and one leaves zeros behind it.",
     "Find out which program wrote the file; compare it with another format of the same weights."},
    {"i2s-groups-of-64", kWarning,
     "bitnet.cpp on Arm writes and reads groups of 64 values; every other build reads garbage.",
     "Run it on the builds that wrote it, or convert the checkpoint again on x86 (groups of 128)."},
    {"i2s-four-rows", kWarning,
     "bitnet.cpp on x86 without ACT_PARALLEL keeps four rows in a byte; other builds read garbage.",
     "Run it on the builds that wrote it, or convert the checkpoint again (groups of 128)."},
    {"i2s-arrangement", kNote, "Three arrangements share type 36, and these weights do not tell them apart.",
     "Compare with the checkpoint (--hf DIR), or with another format of the same weights."},
    {"i2s-readers", kNote, "bitnet.cpp and the native engine read I2_S; llama.cpp does not.",
     "For llama.cpp: paritybit convert FILE --weights TQ2_0 --out OUT.gguf changes no weight."},
    // the tokeniser
    {"tokenizer-missing", kWarning, "No text can be tokenised: engines take token ids alone.", kConvertAgain},
    {"tokenizer-foreign", kNote, "A kind of tokeniser that nothing here checks.",
     "The reference's ids serve a comparison of two engines that know it."},
    {"tokenizer-broken", kError, "Engines refuse the file, or tokenise otherwise.", kConvertAgain},
    {"tokenizer-pre-missing", kWarning,
     "Engines cut text by their default, and get other tokens than the model was trained on.",
     "Convert again with a newer converter, or set tokenizer.ggml.pre to what the model's family has."},
    {"tokenizer-open", kNote, "What is assumed is what llama.cpp assumes.", kNothing},
    {"bytes-missing", kNote, "Texts with these bytes cannot be tokenised.", kNothing},
    {"vocabulary-rows", kError, "llama.cpp refuses the file; others look up rows that are not there.",
     kConvertAgain},
    {"tokenizer-differs", kError, "Texts get other ids than the tokeniser that was given makes of them.",
     "Convert again with the tokeniser's files of the same revision beside the checkpoint."},
    // the checkpoint
    {"checkpoint-unreadable", kError, "Nothing was compared with the checkpoint.",
     "Give a folder with config.json and model.safetensors, or its index with all of its files."},
    {"checkpoint-missing", kWarning, "Where the tensor's values come from is not known.", kConvertAgain},
    {"checkpoint-unread", kWarning, "The converter left the tensor out: what it computes is lost.",
     kConvertAgain},
    {"conversion", kError, "The file computes another model than the checkpoint is.", kConvertAgain},
    {"values-differ", kError, "The file computes another model than the checkpoint is.",
     "See that both are of one revision; then convert again."},
    {"values-not-compared", kWarning, "Whether the tensor holds the checkpoint's values is not known.",
     "Compare a file in another weight type, or another form of the checkpoint."},
};

}  // namespace

const char* SeverityName(Severity severity) {
  return severity == kNote ? "note" : severity == kWarning ? "warning" : "error";
}

std::span<const FindingKind> FindingKinds() { return kKinds; }

void Findings::Add(std::string_view code, std::string where, std::string text, std::string cure) {
  const auto* kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const FindingKind& k) { return k.code == code; });
  PB_CHECK(kind != std::end(kKinds));
  if (cure.empty()) cure = kind->cure;
  items_.push_back({kind, std::move(where), std::move(text), std::move(cure)});
}

bool Findings::Has(std::string_view code) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Finding& f) { return f.kind->code == code; });
}

int Findings::Count(Severity severity) const {
  return static_cast<int>(std::count_if(items_.begin(), items_.end(),
                                        [&](const Finding& f) { return f.kind->severity == severity; }));
}

std::string FirstOf(const std::vector<std::string>& names) {
  constexpr size_t kNamed = 4;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kNamed); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kNamed) text += fmt::format(" and {} more", names.size() - kNamed);
  return text;
}

}  // namespace pb::soundness
