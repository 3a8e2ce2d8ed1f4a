#include "app/exec_flags.h"

#include <cstdio>

#include "app/cli_options.h"
#include "kernels/gemm.h"
#include "train/planned_memory.h"

namespace cald {

void add_exec_flags(CLI::App& command, ExecFlags& flags) {
  command.add_option("--threads", flags.threads, "threads; 0: all of the machine's")
      ->check(whole_number(0, kMostThreads));
  command.add_option("--dtype", flags.dtype, "inputs of matrix products: f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command.add_option("--device", flags.device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command.add_flag("--tf32", flags.tf32, "device cuda: products in f32 may use tensor cores, inputs rounded to TF32");
}

Exec exec_of(const ExecFlags& flags) {
  const Device device = flags.device == "cuda" ? Device::cuda : Device::cpu;
  if (flags.tf32 && device != Device::cuda) throw usage_error("--tf32 belongs to --device cuda");
  const DType wanted = flags.dtype == "bf16" ? DType::bf16 : DType::f32;
  return exec_on(device, flags.threads, supported_dtype(device, wanted, "dtype"), flags.tf32);
}

DType supported_dtype(Device device, DType wanted, const char* flag) {
  if (wanted != DType::bf16 || device == Device::cuda || cpu_has_bf16()) return wanted;
  std::fprintf(stderr, "--%s bf16: this processor has no bf16 instructions (avx512_bf16); going on in f32\n", flag);
  return DType::f32;
}

}  // namespace cald
