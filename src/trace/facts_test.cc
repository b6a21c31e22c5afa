// Facts as docs/plugin_abi.md writes them, read into types.
#include "trace/facts.h"

#include <gtest/gtest.h>

namespace pb::trace {
namespace {

TEST(Facts, OfAModel) {
  const ModelFacts m = ReadModelFacts({{"architecture", "llama", "metadata"},
                                       {"n_layers", "30", "metadata"},
                                       {"d_model", "576", "metadata"},
                                       {"n_kv_heads", "3", "metadata"},
                                       {"n_heads", "nine", "metadata"},
                                       {"head_dim", "-64", "metadata"},
                                       {"ffn.activation", "silu", "config.json"},
                                       {"bos", "1", "metadata"},
                                       {"eos", "2", "metadata"},
                                       {"eog", "2,128009", "metadata"},
                                       {"add_bos", "true", "metadata"}});
  EXPECT_EQ(m.architecture, "llama");
  EXPECT_EQ(m.n_layers, 30);
  EXPECT_EQ(m.shape.d_model, 576);
  EXPECT_EQ(m.shape.n_kv_heads, 3);
  EXPECT_EQ(m.shape.n_heads, 0);
  EXPECT_EQ(m.shape.head_dim, 0);
  EXPECT_EQ(m.activation.value, "silu");
  EXPECT_EQ(m.activation.origin, "config.json");
  EXPECT_FALSE(m.activation_undeclared());
  EXPECT_EQ(m.bos, 1);
  EXPECT_TRUE(m.adds_bos);
  EXPECT_EQ(m.ends, (std::vector<int32_t>{2, 128009}));
}

TEST(Facts, WhatIsNotToldIsEmpty) {
  const ModelFacts m =
      ReadModelFacts({{"eos", "none", "metadata"}, {"ffn.activation", "undeclared", "default"}});
  EXPECT_EQ(m.n_layers, 0);
  EXPECT_EQ(m.bos, -1);
  EXPECT_TRUE(m.ends.empty());
  EXPECT_TRUE(m.activation_undeclared());
  const SessionFacts s = ReadSessionFacts({{"overwrite.exact", "no", "observed"}, {"ubatch", "64", "set"}});
  EXPECT_TRUE(s.kv_type.key.empty());
  EXPECT_EQ(s.ubatch, 64);
  EXPECT_FALSE(s.overwrite_exact);
  EXPECT_TRUE(ReadSessionFacts({}).overwrite_exact);
}

}  // namespace
}  // namespace pb::trace
