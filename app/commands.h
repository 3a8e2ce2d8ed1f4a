// The program's commands. Each is a file command_*.cpp that adds a subcommand and returns what runs when it is chosen.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace cald {

/// Runs the command after the command line is parsed; its value is the exit code.
using CommandBody = std::function<int()>;

CommandBody add_finetune(CLI::App& command);
CommandBody add_convert(CLI::App& command);
CommandBody add_plan(CLI::App& command);
CommandBody add_evaluate(CLI::App& command);
CommandBody add_predict(CLI::App& command);
CommandBody add_states(CLI::App& command);
CommandBody add_inspect(CLI::App& command);
CommandBody add_report(CLI::App& command);
CommandBody add_prepare(CLI::App& command);
CommandBody add_drift(CLI::App& command);
CommandBody add_bench(CLI::App& command);

}  // namespace cald
