// Lays out both perplexities and the difference with its interval.
#include "report/nll_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/parity_blocks.h"
#include "report/text_blocks.h"

namespace pb::report {

std::string RenderNllText(const parity::NllParity& nll, const std::string& origin, const Context& context,
                          const TextOptions& options) {
  std::string out = PairHead(nll.run, options);
  const auto line = [&](std::string_view label, const std::string& text) {
    out += LabelledLine(label, text, options.width);
  };
  const bool measured = !nll.nll[0].empty() && !nll.nll[1].empty();
  if (measured) {
    line("text", fmt::format("{}, {} tokens, {} windows of {}{}; {} tokens count, those of the second half "
                             "of each window",
                             Escape(origin), nll.n_tokens, nll.n_windows, nll.window,
                             nll.window_shrunk ? " (the text is short)" : "", nll.nll[0].size()));
    line("nll", fmt::format("candidate {:.6f}, reference {:.6f} nats a token", nll.mean[0], nll.mean[1]));
    line("perplexity",
         fmt::format("candidate {:.4f} +- {:.4f}, reference {:.4f} +- {:.4f}", nll.perplexity[0],
                     nll.perplexity_error[0], nll.perplexity[1], nll.perplexity_error[1]));
  }
  std::string sentence;
  if (nll.difference) {
    const parity::Interval& d = *nll.difference;
    line("difference", fmt::format("{:+.2e} nats, between {:+.2e} and {:+.2e} ({} batches of {} tokens)",
                                   d.mean, d.low, d.high, d.n_batches, d.batch));
    sentence = fmt::format("both engines predict this text alike: the NLL differs by {:.1e} nats a token",
                           d.mean < 0 ? -d.mean : d.mean);
  }
  return out + PairTail(nll.run, context, options, sentence);
}

std::string RenderNllJson(const parity::NllParity& nll, const std::string& origin, const Context& context) {
  JsonWriter writer(nll.run);
  auto out = PairJson("paritybit.nll-parity/0", nll.run, &writer);
  out["text"] = {{"origin", origin}, {"sha256", nll.text_sha256}, {"n_tokens", nll.n_tokens}};
  out["window"] = nll.window;
  out["n_windows"] = nll.n_windows;
  out["first_scored"] = nll.first_scored;
  out["n_scored"] = nll.nll[0].size();
  const char* const kRoles[] = {"candidate", "reference"};
  for (int side : {0, 1})
    out[kRoles[side]] = {{"nll", writer.Number(nll.mean[side])},
                         {"perplexity", writer.Number(nll.perplexity[side])},
                         {"perplexity_error", writer.Number(nll.perplexity_error[side])}};
  out["difference"] = nullptr;
  if (const auto& d = nll.difference)
    out["difference"] = {{"nll", writer.Number(d->mean)},
                         {"low", writer.Number(d->low)},
                         {"high", writer.Number(d->high)},
                         {"standard_error", writer.Number(d->standard_error)},
                         {"batch", d->batch},
                         {"n_batches", d->n_batches}};
  FinishPairJson(nll.run, context, &writer, &out);
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report
