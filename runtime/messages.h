#pragma once
// What the dispatcher and its workers tell each other, in one process as between machines (runtime/wire.h).
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/generation.h"
#include "simulator/cluster.h"

namespace drydock::runtime {

using simulator::Stage;

// One try of a worker at a request; never used again, so that late news of an earlier try are told from its own.
using Attempt = uint64_t;

// Where the KV of a prompt lies: held for `attempt` by the worker whose KV port is `address`.
struct KvTicket {
  std::string address;  // "host:port", or the worker's name in one process
  Attempt attempt = 0;
  int64_t tokens = 0;  // that have KV
};

// "Make this answer, or this part of it."
struct Start {
  Attempt attempt = 0;
  Stage stage = Stage::whole;  // prefill: one token, then hold the KV; decode: fetch the KV first
  std::vector<Token> tokens;   // prompt and what there is of the answer
  int64_t answered = 0;        // of `tokens`, the last ones: the answer so far. The next draw is of this index
  int64_t most_tokens = 1;     // to make, for a decode stage beside the last of `tokens`
  Sampling sampling;
  std::vector<Token> stop_tokens;
  KvTicket source;          // of a decode stage
  std::string trace, name;  // for logs
};

enum class NewsKind : uint8_t {
  tokens,     // more of the answer
  finished,   // the last of it, `finish` says why
  prefilled,  // by a prefill stage: its one token; the KV is held until release()
  kv_here,    // by a decode stage: the prompt's KV is here, the source may let go
  kv_lost,    // by a decode stage: it could not be had
  refused,    // it does not fit, or the worker is leaving
};

struct News {
  Attempt attempt = 0;
  NewsKind kind = NewsKind::tokens;
  Finish finish = Finish::length;
  std::vector<GeneratedToken> tokens = {};
  double delay_us = 0;        // until they are known: what later pipeline stages still take
  int64_t cached_tokens = 0;  // of the prompt, found in the cache; with the first tokens
  std::string reason = {};
};

// State of a worker, told every kHeartbeat and when asked. Counts are since its process began.
struct Pulse {
  int64_t waiting = 0, running = 0, kv_blocks_used = 0;
  int64_t preemptions = 0, prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0, steps = 0;
  int64_t drafts = 0, draft_tokens = 0,
          accepted_tokens = 0;  // sequences drafted for, step by step; their drafts; right
  int64_t kv_transfers = 0, kv_transfers_failed = 0, kv_transferred_bytes = 0;
  double step_seconds = 0, kv_transfer_seconds = 0;
  double step_age_seconds = 0;  // of the step under way
};

// What a worker is.
struct Hello {
  std::string name;        // "decode/0"
  std::string kv_address;  // of its KV port; empty: it has none
  int64_t kv_blocks = 0, block_tokens = 0, ranks = 1;
};

// A piece of KV, asked for by the worker that needs it. Who asks for so much and no more until it came is not flooded:
// the pieces under way are its credit.
struct KvFetch {
  Attempt attempt = 0;
  int64_t first_block = 0, blocks = 0;  // of the sequence, in order
  double link_free_us = 0;  // until the asker's link is free; for engines whose transfers take predicted time
};

struct KvPiece {
  Attempt attempt = 0;
  bool held = false;  // else the holder does not know it, or no more
  int64_t first_block = 0, blocks = 0;
  double wait_us = 0, link_us = 0;    // predicted: until the KV is there, and until both links are free again
  std::vector<std::byte> bytes = {};  // of the blocks, one after the other
};

inline constexpr std::chrono::milliseconds kHeartbeat{150};
inline constexpr std::chrono::milliseconds kSilence{650};  // then a worker is dead

}  // namespace drydock::runtime
