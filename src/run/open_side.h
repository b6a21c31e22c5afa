// Starts one engine of a comparison and opens its model.
#ifndef PARITYBIT_RUN_OPEN_SIDE_H_
#define PARITYBIT_RUN_OPEN_SIDE_H_

#include <vector>

#include "compare/verdict.h"
#include "drive/participant.h"
#include "model/doubt.h"
#include "run/request.h"

namespace pb::run {

// `side`: 0 the candidate, 1 the reference; `record` is the engine's. Our own reader looks at the
// model file first, and its doubts are added; an activation that nobody declares is an obstacle. An
// error that is the engine's own is its failure (drive::Participant::ObstacleOf).
Status OpenSide(const Request& request, int side, drive::Participant& engine, drive::EngineRecord* record,
                std::vector<Doubt>* doubts, std::vector<compare::Obstacle>* obstacles);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_OPEN_SIDE_H_
