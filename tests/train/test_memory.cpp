// The memory of a step: planned, held to, and near the lower bound on graphs of real size.
#include "tests/train/golden_run.h"
#include "train/cost.h"

namespace cald {
namespace {

/// Notes the heap's count of allocations at the end of every step.
class HeapWatch : public LaunchObserver {
 public:
  explicit HeapWatch(const HeapAllocator& heap) : heap_(heap) {}
  void launched(const Launch& l) override {
    if (std::string(l.kernel) == "adamw") counts.push_back(heap_.allocations());
  }
  std::vector<std::int64_t> counts;

 private:
  const HeapAllocator& heap_;
};

TEST(StepMemory, NothingIsAllocatedWithinAStepAndTheArenaIsAsPlanned) {
  for (const char* name : {"bert_finetune", "bert_target_paper", "bert_trajectory_2"}) {
    TempFolder folder;
    const RunOptions o = golden_options(read_golden(name), folder / "run");
    HeapAllocator heap;
    HeapWatch watch(heap);
    Progress progress = quiet();
    Trainer trainer(o, heap, progress);
    trainer.plan();
    const std::size_t planned = trainer.memory().bytes();
    trainer.observe(&watch);
    const std::atomic<bool> stop{false};
    trainer.run(stop);
    ASSERT_GE(watch.counts.size(), 20u);
    for (const std::int64_t count : watch.counts) EXPECT_EQ(count, watch.counts.front()) << name;
    EXPECT_EQ(trainer.memory().bytes(), planned) << name;
    EXPECT_EQ(trainer.memory().measured_peak(), planned) << name << ": the longest batch uses the arena to its end";
  }
}

EncoderConfig encoder(std::int64_t layers, std::int64_t hidden, bool linformer) {
  EncoderConfig c = EncoderConfig::from_json({{"model_type", "bert"},
                                              {"vocab_size", 1000},
                                              {"hidden_size", hidden},
                                              {"num_hidden_layers", layers},
                                              {"num_attention_heads", 12},
                                              {"intermediate_size", 4 * hidden},
                                              {"max_position_embeddings", 512},
                                              {"type_vocab_size", 2}},
                                             "test");
  if (linformer) replace_mixers(c, "all", "linformer", {{"k", 64}});
  return c;
}

TEST(StepMemory, PlansOfRealGraphsAreWithinFivePercentOfTheBound) {
  for (const auto& [layers, hidden] : {std::pair{6, 384}, std::pair{12, 768}})
    for (const bool linformer : {false, true})
      for (const auto& [batch, seq] : {std::pair{32, 128}, std::pair{8, 512}, std::pair{5, 27}}) {
        RecordingAllocator weights;
        Encoder model(encoder(layers, hidden, linformer));
        model.parameters().allocate(weights, MemClass::weights);
        model.parameters().set_gradients(weights, Gradients::transient);
        RunOptions o;
        o.dropout = 0.1;
        resolve_preset(o);
        Optimizer optimizer(model.parameters(), weights, o, 1e-4, 1e-4);
        HeapAllocator heap;
        PlannedMemory memory(Exec{Device::cpu, 2}, heap);
        TrainStep step(o, model, optimizer, nullptr, {Schedule::linear, 10, 0, 0.0}, memory);
        step.plan(batch, seq);
        const MemoryPlan& plan = *memory.largest();
        EXPECT_LE(static_cast<double>(plan.bytes), 1.05 * static_cast<double>(plan.lower_bound))
            << layers << " layers, " << hidden << " features, " << batch << " x " << seq;
        EXPECT_EQ(heap.allocations(), 0) << "planning takes no memory";
      }
}

}  // namespace
}  // namespace cald
