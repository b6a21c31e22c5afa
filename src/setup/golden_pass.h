// The proof that a reference that was just built computes what it should.
#ifndef PARITYBIT_SETUP_GOLDEN_PASS_H_
#define PARITYBIT_SETUP_GOLDEN_PASS_H_

#include <string>

#include "base/result.h"
#include "setup/setup.h"

namespace pb::setup {

struct Proof {
  std::string text;             // one sentence with the figures
  std::string version, commit;  // as the engine tells them
};

// Starts the reference in a child process, opens the bundled tiny SiLU BitNet (TQ2_0; F16 where the
// engine opens no such file) and compares its
// logits at 32 positions with values recorded from Hugging Face transformers and with all of the
// oracle's. kEngine when it fails, or when what was loaded is not what stands in its library_dir.
Result<Proof> GoldenPass(const Reference& reference);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_GOLDEN_PASS_H_
