#include "app/run_options.h"

#include "app/exec_flags.h"
#include "train/drift.h"
#include "train/option_io.h"
#include "train/trainer.h"

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
  settle_hybrid_stop(o);
  const Exec exec = exec_of(o);
  if (supported_dtype(exec.device, exec.compute, "dtype") == DType::f32) o.dtype = DTypeOption::f32;
  if (o.teacher_dtype && supported_dtype(exec.device, dtype_of(*o.teacher_dtype), "teacher-dtype") == DType::f32)
    o.teacher_dtype = DTypeOption::f32;
  o.threads = exec.threads;
}

}  // namespace cald
