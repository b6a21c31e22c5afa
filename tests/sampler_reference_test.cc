// The filters of infer's sampling against llama.cpp's own samplers, in the order of its chain, on random
// logits. Fails when the reference is not set up.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/random.h"
#include "drive/sampling.h"
#include "setup/setup.h"

namespace pb {
namespace {

// As llama.h of v0.5.0 declares them.
struct TokenData {
  int32_t id;
  float logit, p;
};
struct TokenDataArray {
  TokenData* data;
  size_t size;
  int64_t selected;
  bool sorted;
};

class SamplerReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto reference = setup::FindReference("llama.cpp");
    ASSERT_TRUE(reference.ok()) << reference.error().message;
    // Its name has the version in it; what it needs lies beside it.
    for (const auto& entry : std::filesystem::directory_iterator(reference->library_dir)) {
      const std::string name = entry.path().filename().string();
      if (!library_ && name.starts_with("libllama.") && name.find(".so") != name.npos)
        library_ = dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    ASSERT_NE(library_, nullptr) << dlerror();
  }

  template <typename R, typename... A>
  static R Call(const char* name, A... arguments) {
    void* symbol = library_ ? dlsym(library_, name) : nullptr;
    EXPECT_NE(symbol, nullptr) << name;
    return symbol ? reinterpret_cast<R (*)(A...)>(symbol)(arguments...) : R();
  }
  static void Apply(void* sampler, std::vector<TokenData>* tokens) {
    TokenDataArray array{tokens->data(), tokens->size(), -1, false};
    Call<int>("llama_sampler_apply", sampler, &array);
    tokens->assign(array.data, array.data + array.size);
    Call<int>("llama_sampler_free", sampler);
  }

  // What its chain leaves.
  static std::vector<TokenData> Theirs(const drive::Sampling& s, const std::vector<float>& row,
                                       const std::vector<int32_t>& history) {
    std::vector<TokenData> tokens;
    for (size_t i = 0; i < row.size(); ++i) tokens.push_back({static_cast<int32_t>(i), row[i], 0});
    auto real = [](double value) { return static_cast<float>(value); };
    void* penalties = Call<void*>("llama_sampler_init_penalties", static_cast<int32_t>(row.size()),
                                  s.penalty_window, real(s.repetition), real(s.frequency), real(s.presence));
    for (int32_t id : history) Call<int>("llama_sampler_accept", penalties, id);
    Apply(penalties, &tokens);
    if (s.top_k > 0) Apply(Call<void*>("llama_sampler_init_top_k", s.top_k), &tokens);
    Apply(Call<void*>("llama_sampler_init_typical", real(s.typical_p), size_t{1}), &tokens);
    Apply(Call<void*>("llama_sampler_init_top_p", real(s.top_p), size_t{1}), &tokens);
    Apply(Call<void*>("llama_sampler_init_min_p", real(s.min_p), size_t{1}), &tokens);
    return tokens;
  }

  static void* library_;
};

void* SamplerReference::library_ = nullptr;

TEST_F(SamplerReference, LeavesTheSameTokensWithTheSameLogits) {
  Random random(11);
  auto uniform = [&](double low, double high) { return low + (high - low) * random.Uniform(); };
  int equal = 0, filtered = 0;
  constexpr int kTrials = 400;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<float> row(50 + random.Below(2000));
    for (float& logit : row) logit = static_cast<float>(uniform(-8, 8));
    std::vector<int32_t> history;
    for (uint64_t n = random.Below(200); n > 0; --n)
      history.push_back(static_cast<int32_t>(random.Below(row.size())));
    drive::Sampling s;
    s.repetition = random.Below(2) ? uniform(0.8, 2) : 1;
    s.frequency = random.Below(2) ? uniform(-1, 1) : 0;
    s.presence = random.Below(2) ? uniform(-1, 1) : 0;
    s.penalty_window = static_cast<int32_t>(random.Below(100));
    s.top_k = static_cast<int32_t>(random.Below(2) ? random.Below(row.size()) + 1 : 0);
    s.typical_p = random.Below(2) ? uniform(0.1, 1) : 1;
    s.top_p = random.Below(2) ? uniform(0.05, 1) : 1;
    s.min_p = random.Below(2) ? uniform(0, 0.5) : 0;
    drive::Sampler sampler(s);
    for (int32_t id : history) sampler.Accept(id);
    std::vector<drive::Sampler::Candidate> ours = sampler.Candidates(row);
    std::vector<TokenData> theirs = Theirs(s, row, history);
    auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
    std::sort(ours.begin(), ours.end(), by_id);
    std::sort(theirs.begin(), theirs.end(), by_id);
    filtered += theirs.size() < row.size();
    // It sums in fp32, so that a token at the very border may fall on the other side.
    const size_t more = std::max(ours.size(), theirs.size()), fewer = std::min(ours.size(), theirs.size());
    ASSERT_LE(more - fewer, 1u) << trial;
    if (more != fewer) continue;
    bool same = true;
    for (size_t i = 0; i < fewer; ++i) {
      same = same && ours[i].id == theirs[i].id;
      if (!same) break;
      ASSERT_NEAR(ours[i].logit, theirs[i].logit, 1e-5 * (1 + std::abs(ours[i].logit))) << trial;
    }
    equal += same;
  }
  EXPECT_GE(equal, kTrials * 97 / 100);
  EXPECT_GT(filtered, kTrials / 2);
}

}  // namespace
}  // namespace pb
