// One engine's evaluation with tensors of another put in at chosen points.
#ifndef PARITYBIT_INJECT_INJECTED_RUN_H_
#define PARITYBIT_INJECT_INJECTED_RUN_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "diagnose/arbiter.h"
#include "drive/participant.h"
#include "drive/passes.h"
#include "inject/injection.h"
#include "trace/reader.h"

namespace pb::inject {

// Where the tensors that are put in come from.
class Donor {
 public:
  virtual ~Donor() = default;
  // Why a stage cannot be had from here; empty: it can.
  virtual std::string WhyNot(pb_stage stage) const = 0;
  // Stages of the recipient that must be recorded to give this one.
  virtual void AddInputs(pb_stage stage, std::set<int32_t>* stages) const = 0;
  // Values in the shape of `own`, the recipient's tensor at this point. kNotFound, kUnsupported,
  // kUsage: not to be had.
  virtual Result<std::vector<float>> Give(const host::PointRef& point, const host::TensorRef& own,
                                          const diagnose::PassTensors& recording) = 0;
};

// Tensors as an engine or a trace gave them in a free run.
class TensorDonor : public Donor {
 public:
  // Evaluates the passes in an open session at position 0 and keeps all observed stages, or
  // `stages` alone where not empty.
  static Result<std::unique_ptr<TensorDonor>> Record(host::Engine& engine,
                                                     const std::vector<drive::Pass>& passes,
                                                     std::vector<int32_t> stages);
  static Result<std::unique_ptr<TensorDonor>> FromTrace(trace::Trace trace);

  std::string WhyNot(pb_stage stage) const override;
  void AddInputs(pb_stage, std::set<int32_t>*) const override {}
  Result<std::vector<float>> Give(const host::PointRef& point, const host::TensorRef& own,
                                  const diagnose::PassTensors&) override;

 private:
  using Key = std::tuple<int32_t, int32_t, int32_t>;  // stage, layer, first position
  std::map<Key, diagnose::Recorded> tensors_;
  std::optional<trace::Trace> trace_;
  std::map<Key, const trace::Record*> records_;  // of trace_
  std::set<int32_t> stages_;
  int64_t n_bytes_ = 0;
};

// An engine's ops on the recipient's inputs. The embeddings, which have no inputs, are those of its
// free run.
class OpDonor : public Donor {
 public:
  // `engine`: PB_CAP_REPLAY, with an open session. `embeddings` may be null: it has none to give.
  static Result<std::unique_ptr<OpDonor>> Create(host::Engine& engine,
                                                 std::unique_ptr<TensorDonor> embeddings);

  std::string WhyNot(pb_stage stage) const override;
  void AddInputs(pb_stage stage, std::set<int32_t>* stages) const override;
  Result<std::vector<float>> Give(const host::PointRef& point, const host::TensorRef& own,
                                  const diagnose::PassTensors& recording) override;

 private:
  OpDonor(diagnose::Arbiter ops, std::vector<host::StageVisibility> stages,
          std::unique_ptr<TensorDonor> embeddings)
      : ops_(std::move(ops)), stages_(std::move(stages)), embeddings_(std::move(embeddings)) {}
  diagnose::Arbiter ops_;
  std::vector<host::StageVisibility> stages_;
  std::unique_ptr<TensorDonor> embeddings_;
};

class InjectedRun {
 public:
  // `recipient`: PB_CAP_OVERWRITE, with an open session. What the passes view outlives this.
  InjectedRun(host::Engine& recipient, Donor& donor, std::vector<drive::Pass> passes)
      : recipient_(recipient), donor_(donor), passes_(std::move(passes)) {}

  // Evaluates all passes anew with the donor's tensors at these points; rows come for every
  // position. A point that the donor refuses stays the recipient's own and its stage joins
  // refused().
  Status Run(const std::set<InjectionPoint>& points, const drive::RowFn& on_row);
  const std::map<int32_t, std::string>& refused() const { return refused_; }

 private:
  Status Pass(const drive::Pass& pass, const host::TapFilter& tap, const drive::RowFn& on_row);
  Status AtPoint(const host::Event& event);
  Status AtLogits(const host::Event& event, const drive::RowFn& on_row);

  host::Engine& recipient_;
  Donor& donor_;
  std::vector<drive::Pass> passes_;
  const std::set<InjectionPoint>* points_ = nullptr;
  diagnose::PassTensors recording_;
  std::map<int32_t, std::string> refused_;
};

}  // namespace pb::inject

#endif  // PARITYBIT_INJECT_INJECTED_RUN_H_
