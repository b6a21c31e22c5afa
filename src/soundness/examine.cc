// Runs the parts of an examination one after the other.
#include "soundness/examine.h"

#include "soundness/parts.h"

namespace pb::soundness {
namespace {

Part StructureOf(const Subject& subject) {
  const GgufFile& file = subject.main();
  return {"structure",
          fmt::format("GGUF {}, {} file{}, {} bytes, {} tensors, {} keys, alignment {}", file.version(),
                      subject.files().size(), subject.files().size() == 1 ? "" : "s", subject.bytes(),
                      subject.n_tensors(), file.metadata().size(), file.alignment()),
          true};
}

// The reader that the native engine and the arbiter have has the last word.
void OpenAsModel(const Context& context) {
  if (!context.params || context.subject.sharded() || context.findings.Count(Severity::kError) > 0) return;
  const auto model = Model::Open(context.request.model, context.request.options);
  if (model.ok()) return;
  if (model.error().code == Code::kMalformed)
    context.findings.Add("metadata", "", model.error().message);
  else if (model.error().code == Code::kUnsupported && !context.findings.Has("not-offered"))
    context.findings.Add("not-offered", "", model.error().message);
}

}  // namespace

Result<Examination> Examine(const Request& request) {
  Examination out;
  PB_ASSIGN(const Subject subject, Subject::Open(request.model, &out.findings));
  if (subject.empty()) {
    out.parts.push_back({"structure", "the header cannot be read", true});
    return out;
  }
  ThreadPool pool(request.n_threads);
  Context context{subject, request, pool, out.findings, nullptr, {}};
  out.parts.push_back(StructureOf(subject));
  for (Part (*examine)(Context&) : {ExamineDeclarations, ExamineTensors, ExamineValues, ExamineArrangement,
                                    ExamineTokenizer, CompareTokenizer, CompareCheckpoint}) {
    Part part = examine(context);
    if (!part.name.empty()) out.parts.push_back(std::move(part));
  }
  OpenAsModel(context);
  return out;
}

}  // namespace pb::soundness
