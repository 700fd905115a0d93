#pragma once
// What strangers can hand to drydock, one entry each for the fuzzer and for the replay of its corpus. An input may be
// refused with core::Error in one line; anything else that leaves an entry, a signal included, is a defect.
#include <string_view>

namespace drydock::fuzz {

// A config.json; after a line "---", the hf_quant_config.json beside it.
void config(std::string_view input);
// A plan.json. One that is accepted must read back the same from what is written for it.
void plan(std::string_view input);
// A CSV file, each cell also as number and as op key.
void csv(std::string_view input);
// A performance database, opened and read in full.
void database(std::string_view input);

}  // namespace drydock::fuzz
