#include "configurator/integer_program.h"

#include <coin/Cbc_C_Interface.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <string>

#include "core/error.h"

namespace drydock::configurator {
namespace {

constexpr const char* kMostNodes = "100000";
constexpr double kCbcInfinity = 1e30;  // beyond which CBC takes a bound for none

// CBC's functions by the types of its own header, so that a mismatch is a compiler's error.
class CbcLibrary {
 public:
  static const CbcLibrary& get() {
    static const CbcLibrary library;
    return library;
  }

#define DRYDOCK_CBC(name) decltype(&::Cbc_##name) name = find<decltype(&::Cbc_##name)>("Cbc_" #name)
  void* handle = open();
  DRYDOCK_CBC(newModel);
  DRYDOCK_CBC(deleteModel);
  DRYDOCK_CBC(loadProblem);
  DRYDOCK_CBC(setInteger);
  DRYDOCK_CBC(setLogLevel);
  DRYDOCK_CBC(setParameter);
  DRYDOCK_CBC(solve);
  DRYDOCK_CBC(bestSolution);
  DRYDOCK_CBC(numberSavedSolutions);
  DRYDOCK_CBC(getObjValue);
  DRYDOCK_CBC(getBestPossibleObjValue);
  DRYDOCK_CBC(isProvenOptimal);
  DRYDOCK_CBC(isProvenInfeasible);
#undef DRYDOCK_CBC

 private:
  static void* open() {
    for (const char* name : {"libCbcSolver.so.3", "libCbcSolver.so"})
      if (void* handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) return handle;
    throw core::Error("the solver CBC can't be opened (libCbcSolver.so.3); want Debian's package coinor-libcbc3");
  }

  template <typename Function>
  Function find(const char* name) const {
    void* symbol = ::dlsym(handle, name);
    if (!symbol) throw core::Error(std::string("the solver CBC lacks ") + name + "; want version 2.10");
    return reinterpret_cast<Function>(symbol);
  }
};

struct CbcColumns {
  std::vector<CoinBigIndex> starts{0};
  std::vector<int> rows;
  std::vector<double> values, low, high, cost, row_low, row_high;
};

CbcColumns cbc_columns(const IntegerProgram& program) {
  CbcColumns out;
  for (const auto& column : program.columns) {
    for (const auto& [row, value] : column.entries) {
      out.rows.push_back(static_cast<int>(row));
      out.values.push_back(value);
    }
    out.starts.push_back(static_cast<CoinBigIndex>(out.rows.size()));
    out.low.push_back(0);
    out.high.push_back(std::min(column.most, kCbcInfinity));
    out.cost.push_back(column.cost);
  }
  for (const auto& row : program.rows) {
    out.row_low.push_back(std::max(row.low, -kCbcInfinity));
    out.row_high.push_back(std::min(row.high, kCbcInfinity));
  }
  return out;
}

}  // namespace

IntegerAnswer minimum(const IntegerProgram& program) {
  static std::mutex one_at_a_time;  // CBC keeps state of its own
  const std::scoped_lock lock(one_at_a_time);
  const CbcLibrary& cbc = CbcLibrary::get();
  const CbcColumns c = cbc_columns(program);
  const std::unique_ptr<Cbc_Model, void (*)(Cbc_Model*)> model(cbc.newModel(), cbc.deleteModel);
  cbc.setLogLevel(model.get(), 0);
  cbc.loadProblem(model.get(), static_cast<int>(program.columns.size()), static_cast<int>(program.rows.size()),
                  c.starts.data(), c.rows.data(), c.values.data(), c.low.data(), c.high.data(), c.cost.data(),
                  c.row_low.data(), c.row_high.data());
  for (size_t i = 0; i < program.columns.size(); ++i)
    if (program.columns[i].whole) cbc.setInteger(model.get(), static_cast<int>(i));
  cbc.setParameter(model.get(), "maxNodes", kMostNodes);
  cbc.setParameter(model.get(), "ratioGap", "0");
  cbc.solve(model.get());
  IntegerAnswer out;
  const double* x = cbc.bestSolution(model.get());
  out.feasible = !cbc.isProvenInfeasible(model.get()) && x && cbc.numberSavedSolutions(model.get()) > 0;
  if (!out.feasible) return out;
  for (size_t i = 0; i < program.columns.size(); ++i) {
    const auto& column = program.columns[i];
    out.x.push_back(column.whole ? std::round(x[i]) : x[i]);
    out.value += column.cost * out.x.back();
  }
  out.bound =
      cbc.isProvenOptimal(model.get()) ? out.value : std::min(out.value, cbc.getBestPossibleObjValue(model.get()));
  return out;
}

}  // namespace drydock::configurator
