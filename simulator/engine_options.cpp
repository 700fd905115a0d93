#include "simulator/engine_options.h"

#include "core/error.h"

namespace drydock::simulator {

std::optional<scheduler::Speculation> speculation_of(const std::string& text, const models::Architecture& architecture,
                                                     const std::string& where) {
  if (text.empty()) return std::nullopt;
  std::optional<scheduler::Speculation> out;
  try {
    out = scheduler::parse_speculation(text);
  } catch (const core::Error& error) {
    throw core::Error(where + ": " + error.what());
  }
  if (out->method == scheduler::DraftMethod::mtp && architecture.mtp_layers == 0)
    throw core::Error(where + ": " + architecture.name +
                      " has no layers for multi-token prediction; want eagle, draft or ngram in place of mtp");
  return out;
}

EngineOptions engine_options(const std::optional<scheduler::Speculation>& speculation,
                             std::shared_ptr<const ExpertLoad> experts, models::Role role) {
  EngineOptions out;
  if (role != models::Role::prefill) out.speculation = speculation;
  if (experts) out.expert_copies = static_cast<double>(experts->slots()) / experts->experts();
  out.experts = std::move(experts);
  return out;
}

DraftPasses draft_passes(const scheduler::Speculation& speculation, int64_t stage_layers) {
  constexpr double kDraftModel = 1.0 / 20;
  const double drafts = speculation.drafts();
  switch (speculation.method) {
    case scheduler::DraftMethod::mtp:
    case scheduler::DraftMethod::eagle:
      return {drafts / static_cast<double>(stage_layers), drafts};
    case scheduler::DraftMethod::draft:
      return {drafts * kDraftModel, drafts * kDraftModel};
    case scheduler::DraftMethod::ngram:
      break;
  }
  return {};
}

}  // namespace drydock::simulator
