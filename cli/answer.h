#pragma once
// A search's answer, for people and for scripts.
#include <string>
#include <vector>

#include "configurator/predict.h"
#include "configurator/search.h"
#include "core/json.h"

namespace drydock::cli {

core::Json answer_json(const configurator::Question& question, const configurator::Answer& answer,
                       configurator::Resources& resources, double wall_ms);

void print_answer(const configurator::Question& question, const configurator::Answer& answer,
                  configurator::Resources& resources, double wall_ms, const std::string& out_dir);

// What was assumed in reading the model, and formats that a system's GPUs do not compute in: one line each.
std::vector<std::string> cautions(const configurator::Question& question, configurator::Resources& resources);

std::string pareto_csv(const std::vector<configurator::Ranked>& front);

// One plan: figures, pools and breakdown.
core::Json plan_json(const models::Plan& plan);
core::Json detail_json(const std::vector<configurator::PoolDetail>& pools);
void print_details(const std::vector<configurator::PoolDetail>& pools);

// "2x tp4", "1x tp2 pp2", "1x dp8 ep8"
std::string pool_text(const models::Pool& pool);

}  // namespace drydock::cli
