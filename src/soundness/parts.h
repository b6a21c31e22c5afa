// The parts of an examination, which share what is known of the model so far.
#ifndef PARITYBIT_SOUNDNESS_PARTS_H_
#define PARITYBIT_SOUNDNESS_PARTS_H_

#include <optional>
#include <string>

#include "base/thread_pool.h"
#include "model/hyper.h"
#include "soundness/examine.h"
#include "soundness/subject.h"

namespace pb::soundness {

struct Context {
  const Subject& subject;
  const Request& request;
  ThreadPool& pool;
  Findings& findings;
  const Architecture* architecture = nullptr;  // nullptr: one that nothing here runs
  std::optional<HyperParameters> params;       // none: not known
};

// Each appends to the context's findings, and returns what it covered.
Part ExamineDeclarations(Context& context);  // fills in architecture and params
Part ExamineTensors(Context& context);
Part ExamineValues(Context& context);
Part ExamineArrangement(Context& context);
Part ExamineTokenizer(Context& context);
Part CompareTokenizer(Context& context);
Part CompareCheckpoint(Context& context);

}  // namespace pb::soundness

#endif  // PARITYBIT_SOUNDNESS_PARTS_H_
