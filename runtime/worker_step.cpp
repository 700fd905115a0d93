// A worker's step: from a scheduler's batch to work for the engine, and from its tokens to news.
#include <algorithm>
#include <cassert>

#include "core/error.h"
#include "runtime/worker_state.h"

namespace drydock::runtime {
namespace {

// BlockId is the unsigned sibling of the engine's type, and below 2^31.
std::span<const int32_t> engine_blocks(std::span<const scheduler::BlockId> blocks) {
  return {reinterpret_cast<const int32_t*>(blocks.data()), blocks.size()};
}

}  // namespace

bool Worker::Impl::step() { return overlaps ? overlapped_step() : whole_step(); }

// While a step is computed the next one is formed, late: what has come until then is in it. Then the results of the
// first are told, while the second is computed. How long a step with prompts will take is not known: its results are
// waited for, and the time in which nothing is computed then is small beside it.
bool Worker::Impl::overlapped_step() {
  if (under_way == 0 && !launch_step()) return false;
  if (foreseen()) {
    constexpr double kLate = 0.8;                       // of the step
    constexpr double kForming = 1.25, kMarginUs = 100;  // of the time that forming takes, and beside it
    const double least_us = forecast.least_us(flights[oldest].sequences);
    const double us = std::max(0.0, std::min(kLate * least_us, least_us - kForming * forming_us - kMarginUs));
    run_tasks_until(step_began + std::chrono::nanoseconds(static_cast<int64_t>(us * 1e3)));
    launch_step();
  }
  land_step();
  return true;
}

bool Worker::Impl::foreseen() const {
  return !flights[oldest].prompts && forecast.least_us(flights[oldest].sequences) > 0;
}

void Worker::Impl::run_tasks_until(Clock::time_point when) {
  for (;;) {
    {
      std::unique_lock lock(mutex);
      wake.wait_until(lock, when, [this] { return stopping || !tasks.empty(); });
      if (stopping || tasks.empty()) return;
      taken.swap(tasks);
    }
    run_taken();
    publish();
    flush();
    if (Clock::now() >= when) return;
  }
}

// The next step's batch as work for the engine. False: there is none.
bool Worker::Impl::form(Flight& flight) {
  bool any = false;
  flight.drawn.clear();
  flight.sequences = 0;
  flight.prompts = false;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const scheduler::Batch& batch = ranks[r].next_batch();
    active[r] = !batch.empty();
    any |= !batch.empty();
    fill(static_cast<int>(r), batch, flight);
  }
  return any;
}

void Worker::Impl::complete_step() {
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (!active[r]) continue;
    for (const scheduler::RequestId id : ranks[r].complete().finished) owners[r][static_cast<size_t>(id)]->ended = true;
  }
}

// As the simulator's workers place requests: on the rank with the fewest, then the fewest tokens that wait.
int Worker::Impl::choose_rank() {
  if (ranks.size() == 1) return 0;
  rank_sequences.clear(), rank_tokens.clear();
  for (const scheduler::Scheduler& s : ranks) {
    rank_sequences.push_back(s.running() + s.waiting());
    rank_tokens.push_back(s.waiting_tokens());
  }
  return std::max(0, scheduler::least_loaded_rank(rank_sequences, rank_tokens));
}

void Worker::Impl::submit(Start start) {
  const bool pulls = start.stage == Stage::decode;
  auto s = std::make_shared<Sequence>();
  s->tokens = std::move(start.tokens);
  s->answered = start.answered;
  s->left = start.stage == Stage::prefill ? 1 : start.most_tokens;
  s->rank = choose_rank();
  s->start = std::move(start);
  scheduler::Scheduler& rank = ranks[static_cast<size_t>(s->rank)];
  scheduler::Request request;
  request.prompt_tokens = static_cast<int64_t>(s->tokens.size()) - (pulls ? 1 : 0);
  request.output_tokens = s->left + (pulls ? 1 : 0);
  request.prefilled = pulls;
  request.keeps_kv = s->start.stage == Stage::prefill;
  const bool sound = request.prompt_tokens > 0 && s->left > 0 && !sequences.contains(s->start.attempt);
  const bool known = std::all_of(s->tokens.begin(), s->tokens.end(),
                                 [most = engine->vocabulary()](Token t) { return t >= 0 && t < most; });
  // An engine that is given what it can't compute fails, and then the next one: nothing such may come to it.
  if (!sound || !known || !rank.can_run(request)) {
    News news{.attempt = s->start.attempt, .kind = NewsKind::refused};
    news.reason = known ? "it does not fit the KV cache of " + spec.name : "a token is not in the model's vocabulary";
    return tell(std::move(news));
  }
  names.clear();
  if (spec.policy.prefix_cache) hasher.extend(s->chain, s->tokens, names);
  request.hashes = names;
  s->id = rank.add(request);
  auto& owner = owners[static_cast<size_t>(s->rank)];
  if (static_cast<size_t>(s->id) >= owner.size()) owner.resize(static_cast<size_t>(s->id) + 1);
  sequences[s->start.attempt] = s.get();
  owner[static_cast<size_t>(s->id)] = std::move(s);
}

void Worker::Impl::cancel(Attempt attempt) {
  Sequence* s = find(attempt);
  if (!s) return release(attempt);
  if (receiver) receiver->forget(attempt);
  scheduler::Scheduler& rank = ranks[static_cast<size_t>(s->rank)];
  if (!s->ended)
    rank.stop(s->id);
  else if (s->start.stage == Stage::prefill)
    rank.release(s->id);
  drop(*s);
}

// Gone for the worker; the scheduler may show it in a batch until it leaves.
void Worker::Impl::drop(Sequence& s) {
  if (spec.forget_drafts) spec.forget_drafts(s.start.attempt);
  s.finished = true;
  sequences.erase(s.start.attempt);
}

void Worker::Impl::forget_all() {
  while (!sequences.empty()) cancel(sequences.begin()->first);
  while (!held.empty()) release(held.begin()->first);
  news_.clear();
}

void Worker::Impl::fill(int rank, const scheduler::Batch& batch, Flight& flight) {
  RankWork& w = work[static_cast<size_t>(rank)];
  scheduler::Scheduler& scheduler = ranks[static_cast<size_t>(rank)];
  auto& owner = owners[static_cast<size_t>(rank)];
  w.prompts.clear();
  w.decodes.clear();
  w.swapped_kv_tokens = static_cast<double>(batch.swapped_in + batch.swapped_out);
  for (const scheduler::RequestId id : batch.pulls) fetch_kv(*owner[static_cast<size_t>(id)]);
  for (const scheduler::Chunk& c : batch.prompts) {
    const std::shared_ptr<Sequence>& owned = owner[static_cast<size_t>(c.id)];
    Sequence& s = *owned;
    if (s.cached < 0) {
      s.cached = c.context;
      counts.prompt_tokens += static_cast<int64_t>(s.tokens.size());
      counts.cached_prompt_tokens += c.context;
    }
    const auto tokens =
        std::span<const Token>(s.tokens).subspan(static_cast<size_t>(c.context), static_cast<size_t>(c.tokens));
    w.prompts.push_back(
        {tokens, c.context, engine_blocks(scheduler.blocks(c.id)), c.last ? 1 : 0, &s.start.sampling, s.answered});
    if (c.last) flight.drawn.push_back({owned, 1, 1, true});
  }
  feed(rank, batch);
  for (const scheduler::RequestId id : batch.decodes) {
    const std::shared_ptr<Sequence>& owned = owner[static_cast<size_t>(id)];
    const Sequence& s = *owned;
    const auto outputs = s.finished ? int64_t{0} : static_cast<int64_t>(s.fed.size());
    w.decodes.push_back({s.fed, static_cast<int64_t>(s.tokens.size()) + s.unknown - 1,
                         engine_blocks(scheduler.blocks(id)), outputs, &s.start.sampling, s.answered + s.unknown,
                         s.unknown > 0 ? s.output : -1});
    if (!s.finished) flight.drawn.push_back({owned, outputs, 1, false});
  }
  flight.sequences += static_cast<int64_t>(w.prompts.size() + w.decodes.size());
  flight.prompts |= !w.prompts.empty();
}

// To each that decodes its last token, whose KV is not there yet, and drafts of those after it.
void Worker::Impl::feed(int rank, const scheduler::Batch& batch) {
  auto& owner = owners[static_cast<size_t>(rank)];
  questions.clear();
  for (const scheduler::RequestId id : batch.decodes) {
    Sequence& s = *owner[static_cast<size_t>(id)];
    s.fed.assign(1, s.tokens.back());
    const int64_t most = std::min(spec.policy.decode_tokens, s.left) - 1;
    if (most > 0 && !s.finished && spec.drafts)
      questions.push_back({s.start.attempt, s.tokens, s.start.sampling, s.answered, most});
  }
  if (questions.empty()) return;
  const DraftAnswers answers = spec.drafts(questions);
  for (size_t q = 0; q < answers.size() && q < questions.size(); ++q) {
    const auto most = std::min(answers[q].size(), static_cast<size_t>(questions[q].most));
    auto& fed = find(questions[q].sequence)->fed;
    fed.insert(fed.end(), answers[q].begin(), answers[q].begin() + static_cast<int64_t>(most));
    counts.drafts += most > 0;
    counts.draft_tokens += static_cast<int64_t>(most);
  }
}

// Drafts count while they are what the model drew; the token after the last right one counts as well.
void Worker::Impl::count_won(Flight& flight) {
  size_t at = 0;
  for (Drawn& d : flight.drawn) {
    if (at + static_cast<size_t>(d.count) > result.tokens.size())
      throw core::Error(spec.name + ": the engine drew fewer tokens than it was asked for");
    int64_t won = 1;
    if (!d.of_prompt && !overlaps) {
      const auto drafts = d.sequence->drafts();
      while (won < d.count &&
             drafts[static_cast<size_t>(won) - 1] == result.tokens[at + static_cast<size_t>(won) - 1].token)
        ++won;
      ranks[static_cast<size_t>(d.sequence->rank)].won(d.sequence->id, won);
      counts.accepted_tokens += won - 1;
    }
    at += static_cast<size_t>(d.count);
    d.won = won;
  }
}

// Of a sequence that has ended meanwhile nothing is told any more.
void Worker::Impl::take_results(const Flight& flight) {
  size_t at = 0;
  for (const Drawn& d : flight.drawn) {
    if (!d.sequence->finished)
      take(*d.sequence, std::span(result.tokens).subspan(at, static_cast<size_t>(d.won)), d.of_prompt);
    at += static_cast<size_t>(d.count);
  }
}

// Appends what was drawn up to a stop token or the last token.
void Worker::Impl::take(Sequence& s, std::span<GeneratedToken> tokens, bool of_prompt) {
  News news{.attempt = s.start.attempt};
  bool stopped = false;
  for (GeneratedToken& token : tokens) {
    const auto& stops = s.start.stop_tokens;
    // The dispatcher looks at a prefill stage's one token: nothing is decoded here.
    stopped = s.start.stage != Stage::prefill && std::find(stops.begin(), stops.end(), token.token) != stops.end();
    if (stopped) break;
    s.tokens.push_back(token.token);
    ++s.answered, --s.left;
    news.tokens.push_back(std::move(token));
  }
  counts.generated_tokens += static_cast<int64_t>(news.tokens.size());
  if (of_prompt) {
    news.delay_us = result.drain_us;
    news.cached_tokens = std::max<int64_t>(0, s.cached);
  }
  scheduler::Scheduler& rank = ranks[static_cast<size_t>(s.rank)];
  if (stopped || s.left == 0) {
    news.kind = s.start.stage == Stage::prefill ? NewsKind::prefilled : NewsKind::finished;
    news.finish = stopped ? Finish::stop : Finish::length;
    if (news.kind == NewsKind::prefilled) hold(s);
    if (stopped && !s.ended) rank.stop(s.id);
    drop(s);
  } else if (!s.ended && spec.policy.prefix_cache &&
             static_cast<int64_t>(s.tokens.size()) / spec.block_tokens > s.chain.blocks) {
    names.clear();
    hasher.extend(s.chain, s.tokens, names);
    rank.extend_hashes(s.id, names);
  }
  tell(std::move(news));
}

void Worker::Impl::hold(Sequence& s) {
  const auto blocks = engine_blocks(ranks[static_cast<size_t>(s.rank)].blocks(s.id));
  const std::scoped_lock lock(held_mutex);
  held[s.start.attempt] = {s.rank, s.id, {blocks.begin(), blocks.end()}, static_cast<int64_t>(s.tokens.size()) - 1};
}

void Worker::Impl::release(Attempt attempt) {
  HeldKv kv;
  {
    const std::scoped_lock lock(held_mutex);
    const auto at = held.find(attempt);
    if (at == held.end()) return;
    kv = std::move(at->second);
    held.erase(at);
  }
  ranks[static_cast<size_t>(kv.rank)].release(kv.id);
}

void Worker::Impl::fetch_kv(Sequence& s) {
  const int64_t tokens = static_cast<int64_t>(s.tokens.size()) - 1;
  receiver->add({s.start.attempt, s.start.source, (tokens + spec.block_tokens - 1) / spec.block_tokens, counts_bytes});
}

// The client may have the first token now, whatever step is under way.
void Worker::Impl::kv_done(Attempt attempt, bool came, const std::string& reason) {
  sink.news({{.attempt = attempt, .kind = came ? NewsKind::kv_here : NewsKind::kv_lost, .reason = reason}});
  post([this, attempt, came] {
    Sequence* s = find(attempt);
    if (!s) return;
    if (!came) return cancel(attempt);
    ranks[static_cast<size_t>(s->rank)].arrived(s->id);
  });
}

bool Worker::Impl::write_kv(Attempt attempt, int64_t first_block, std::span<const std::byte> bytes) {
  const Sequence* s = find(attempt);
  if (!s || bytes.empty()) return false;
  const auto blocks = engine_blocks(ranks[static_cast<size_t>(s->rank)].blocks(s->id));
  const size_t count = bytes.size() / engine->kv_block_bytes();
  if (static_cast<size_t>(first_block) + count > blocks.size()) return false;
  engine->write_kv(s->rank, blocks.subspan(static_cast<size_t>(first_block), count), bytes);
  return true;
}

void Worker::Impl::fetch(const KvFetch& fetch, std::function<void(KvPiece)> answer) {
  KvPiece piece{.attempt = fetch.attempt, .first_block = fetch.first_block, .blocks = fetch.blocks};
  if (counts_bytes)
    return post([this, fetch, none = std::move(piece), answer = std::move(answer)] {
      KvPiece read;
      try {
        read = read_piece(fetch);
      } catch (...) {
        answer(none);
        throw;  // the engine has failed
      }
      answer(std::move(read));
    });
  int64_t tokens = 0;
  {
    const std::scoped_lock lock(held_mutex);
    const auto at = held.find(fetch.attempt);
    piece.held = at != held.end();
    if (piece.held) tokens = at->second.tokens;
  }
  if (piece.held) {
    // As the simulator's clusters price it.
    const simulator::TransferSpec& t = spec.transfer;
    const auto count = static_cast<double>(tokens);
    piece.link_us = link.take(t.us_per_token * count * (1 - t.overlap), fetch.link_free_us);
    piece.wait_us = piece.link_us + t.fixed_us + t.us_per_block * count / static_cast<double>(spec.block_tokens);
  }
  answer(std::move(piece));
}

KvPiece Worker::Impl::read_piece(const KvFetch& fetch) {
  constexpr size_t kMostBytes = 8u << 20;
  KvPiece piece{.attempt = fetch.attempt, .first_block = fetch.first_block, .blocks = fetch.blocks};
  const std::scoped_lock lock(held_mutex);
  const auto at = held.find(fetch.attempt);
  if (at == held.end() || fetch.first_block < 0 || fetch.blocks < 1) return piece;
  const auto& blocks = at->second.blocks;
  const size_t bytes = engine->kv_block_bytes();
  if (static_cast<size_t>(fetch.first_block) + static_cast<size_t>(fetch.blocks) > blocks.size()) return piece;
  if (fetch.blocks > 1 && static_cast<size_t>(fetch.blocks) * bytes > kMostBytes) return piece;
  piece.held = true;
  piece.bytes.resize(static_cast<size_t>(fetch.blocks) * bytes);
  const auto wanted =
      std::span(blocks).subspan(static_cast<size_t>(fetch.first_block), static_cast<size_t>(fetch.blocks));
  engine->read_kv(at->second.rank, wanted, piece.bytes);
  return piece;
}

}  // namespace drydock::runtime
