#include "app/run_options.h"

#include "app/exec_flags.h"
#include "train/option_io.h"
#include "train/planned_memory.h"

namespace cald {

RunOptions conversion_defaults() {
  RunOptions o;
  o.mode = Mode::unguided;
  return o;
}

void resolve(RunOptions& o, const std::vector<std::string>& needed) {
  require_options(o, needed);
  resolve_preset(o);
  validate(o);
  if (o.device == DeviceOption::cuda) throw Error("--device cuda: this program has no CUDA backend; use --device cpu");
  if (o.dtype == DTypeOption::bf16 && supported_dtype(DType::bf16) == DType::f32) o.dtype = DTypeOption::f32;
  o.threads = cpu_exec(o.threads).threads;
}

}  // namespace cald
