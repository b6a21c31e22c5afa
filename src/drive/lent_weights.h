// Weights of types that nothing here decodes: an engine that can decode them lends its decoder, in a
// process of its own.
#ifndef PARITYBIT_DRIVE_LENT_WEIGHTS_H_
#define PARITYBIT_DRIVE_LENT_WEIGHTS_H_

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "drive/engine_record.h"
#include "host/engine.h"
#include "model/model.h"

namespace pb::drive {

// Opens a model file. Where nothing here decodes some of its weights the first of `lenders`
// (engine plugins) that decodes them all does; what else is the matter is Model::Open's error.
Result<std::shared_ptr<const Model>> OpenModel(const std::filesystem::path& path, ModelOptions options,
                                               std::span<const std::filesystem::path> lenders,
                                               const host::Limits& limits);

// What tells the arbiter whose decoder to use; nothing where the model needs none.
void PutDecoder(const Model& model, host::Settings* settings);

// "weights of IQ2_XXS and IQ3_S are decoded by llama.cpp's own code ...", a sentence; empty where
// the model needs no lent decoder.
std::string LentText(const Model& model);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_LENT_WEIGHTS_H_
