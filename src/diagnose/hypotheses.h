// Named ways to get an op wrong, each tried on the output of the engine that is wrong: one table of
// variations of the op, and transformations of its output whose numbers are fitted and then
// verified.
#ifndef PARITYBIT_DIAGNOSE_HYPOTHESES_H_
#define PARITYBIT_DIAGNOSE_HYPOTHESES_H_

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "diagnose/conclusion.h"
#include "diagnose/file_arbiter.h"

namespace pb::diagnose {

// What a hypothesis says in the vocabulary of conclusions.
struct Meaning {
  Where where = Where::kUnknown;
  Region part;  // kUnknown: all
  WhatKind what = WhatKind::kUnknown;
  double value = 0;
};
// Of a variation of an op, by its name.
Meaning MeaningOf(const std::string& name, int32_t stage);

// A hypothesis that was tried: the op as it would be if the engine did this.
struct Trial {
  std::string side;  // "candidate" "reference": whose output it is to explain
  std::string name;  // "ffn.activation=silu", "factor=1.05": stable, machine-readable
  // "runs SiLU, the model declares squared ReLU": what the side does; a half sentence
  std::string text;
  std::string short_text;  // "SiLU": agreement is restored with ...
  // numbers that were fitted to the very output that they explain
  int n_fitted = 0;
  double error = 0, bound_ratio = 0;  // of the side's output against the hypothesis
  // agreement within the bound of all rows, or explained by codes
  bool restores = false;
  // It does so with the hypothesis in the part of the output alone that is wrong: columns
  // (meaning.part), or whole token rows.
  bool in_part = false, rows_alone = false;
  // Token rows that `error` is over, and those of the op: a large product is tried on some of them
  // first.
  int64_t n_rows = 0, of_rows = 0;
  Meaning meaning;
  int32_t stage = -1;  // whose variation it is, where that is an op before this one; -1: this one's
  // The op under the hypothesis in other passes, while the diagnosis runs; empty: it is not known there.
  std::function<Result<Expectation>(const Culprit&)> replay = {};
};

// What hypotheses are tried on.
struct Subject {
  std::string side;
  const Culprit* culprit = nullptr;
  FileArbiter* arbiter = nullptr;   // of the file that counts
  std::span<const float> output;    // what the side gave
  std::span<const float> declared;  // what the op should give
  std::span<const float> units;     // of declared (Expectation::units); may be empty
  // Stages of the op's inputs that no point shows, so that the arbiter computed them.
  std::vector<pb_stage> recomputed = {};
};

// All that apply to the op; those that restore agreement first: fewer fitted numbers first, then
// the smaller error. What the arbiter refuses (a shape that a variation does not fit) is not among
// them. Of a product of more than 2e8 multiply-adds some rows are tried (ChooseRows), and all of
// them where those agree.
std::vector<Trial> TryHypotheses(const Subject& subject);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_HYPOTHESES_H_
