// libFuzzer target of the weight-file reader, aware of the format.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_weights.cpp -o fuzz_weights
//   ./fuzz_weights -max_len=8192 CORPUS    (needs no seeds: from nothing it starts with the toy files of the tests)
//
// An input is one control byte and a file. Mutations mostly hit the header alone, trade tokens, or keep length, offsets
// and hashes in agreement: a blind mutation would never come past them.
#include <cstdlib>
#include <random>

#include "../weights_builder.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using facenet::Errc, facenet::Network, facenet::Span, facenet::Status, facenet::WeightsReader;

constexpr Network toy = builder::toy_network();
constexpr facenet::models::Entry table[] = {{"toy", nullptr, 1, &builder::toy_traits}};

void require(bool holds) {
  if (!holds) std::abort();
}

void check_tensors(WeightsReader& reader) {
  std::int64_t end = 0;
  std::vector<float> values;
  for (int i = 0; i < reader.size(); ++i) {
    const facenet::TensorInfo& t = reader.tensor(i);
    require(reader.find(t.name) == i && std::strlen(t.name) <= 128);
    require(t.rank >= 0 && t.rank <= 4 && t.offset == end && t.bytes > 0);
    end += t.bytes;
    values.resize(static_cast<std::size_t>(elements(t)));
    if (!reader.read_f32(i, values).ok()) continue;
    for (float v : values) require(std::isfinite(v));
  }
  require(end < reader.file_bytes());
  std::size_t length = 0;
  for (const facenet::MetadataEntry& e : reader.entries()) length += std::strlen(e.key) + std::strlen(e.value);
  require(length < std::size_t{1} << 20);
}

Status use(Span<const std::uint8_t> file, bool verify) {
  auto result = WeightsReader::from_memory(file, {verify, nullptr});
  if (!result.ok()) return result.status();
  WeightsReader reader = std::move(*result);
  check_tensors(reader);
  const Status recognised = reader.recognise(table);
  require(reader.metadata().embedding_dim >= 0 && reader.metadata().embedding_dim <= facenet::max_embedding_dim);
  if (!recognised.ok()) return recognised;
  const std::string digest = reader.digest();
  int calls = 0;
  bool seen[Network::max_ops] = {};
  Status s = reader.for_each_layer(toy, [&](int op, Span<const float> weight, Span<const float> bias) -> Status {
    require(!seen[op] && bias.size() == static_cast<std::size_t>(toy[op].out.c));
    seen[op] = true;
    ++calls;
    require(weight.size() == static_cast<std::size_t>(weight_count(toy, toy[op])));
    for (float v : weight) require(std::isfinite(v));
    for (float v : bias) require(std::isfinite(v));
    return {};
  });
  if (!s.ok()) return s;
  require(calls == 4);
  if (verify && !reader.metadata().assumed) require(digest == reader.digest());
  const double threshold = reader.metadata().threshold;
  require(threshold >= 0 && threshold <= 1e6 && (threshold > 0) == (*reader.metadata().threshold_source != 0));
  return s;
}

std::string toy_file(unsigned which) {
  const char* dtypes[] = {"F32", "F16", "I8"};
  builder::File file = which % 4 == 3 ? builder::state_dict(toy) : builder::converted(toy, dtypes[which % 4]);
  if (which % 8 == 2) file.meta("threshold") = "0.83", file.meta("threshold_source") = "a fuzzer";
  if (which % 8 == 4) file.tensors.push_back(builder::f32("selftest.x", {2, 1}, {1, 2}));
  if (which % 8 == 5) file.tensors.insert(file.tensors.begin(), {"pad", "U8", {3}, std::string(3, '\0')});
  if (which % 8 == 7)
    for (builder::Tensor& t : file.tensors) t.name = "module." + t.name;
  return file.bytes();
}

const char* const tokens[] = {"{",
                              "}",
                              "[",
                              "]",
                              ":",
                              ",",
                              "\"",
                              "\\",
                              "\\u0041",
                              "\\ud83d\\ude00",
                              "\\n",
                              " ",
                              "0",
                              "1",
                              "-1",
                              "01",
                              "1e3",
                              "1048576",
                              "1048577",
                              "18446744073709551616",
                              "F32",
                              "F16",
                              "I8",
                              "U8",
                              "I64",
                              "BOOL",
                              "BF16",
                              "\"dtype\":\"F32\"",
                              "\"shape\":[]",
                              "\"shape\":[1,1,1,1]",
                              "\"data_offsets\":[0,0]",
                              "\"__metadata__\":{",
                              "\"format\":\"1\"",
                              "\"format\":\"pt\"",
                              "\"threshold\":\"1.1\"",
                              "\"threshold_source\":\"x\"",
                              "module.",
                              "logits.",
                              "num_batches_tracked",
                              "facenet_untrained",
                              "selftest.",
                              "mtcnn.",
                              ".weight",
                              ".bias",
                              ".weight_scale",
                              ".bn.",
                              "stem",
                              "up",
                              "branch.0",
                              "last_linear",
                              "last_bn.",
                              "true",
                              "false",
                              "l2",
                              "none",
                              "five_point",
                              "\xc3\xa9",
                              "\xe2\x82\xac",
                              "\xed\xa0\x80",
                              "\x7f",
                              "data_xxh64",
                              "header_xxh64"};

/// The header and data of a file as its length says; as much header as there is where the length is wrong.
void split(const std::string& file, std::string& header, std::string& data) {
  const std::uint64_t length = file.size() < 8 ? 0 : facenet::detail::load_le<std::uint64_t>(file.data());
  const std::string rest = file.size() < 8 ? file : file.substr(8);
  const std::size_t cut = length < rest.size() ? static_cast<std::size_t>(length) : rest.size();
  header = rest.substr(0, cut);
  data = rest.substr(cut);
}

void mutate(std::string& s, std::size_t most) {
  const std::size_t size = s.size() < most ? s.size() : most;
  s.resize(most);
  s.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(&s[0]), size, most));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Span<const std::uint8_t> file = {data + 1, size - 1};
  const bool verify = (data[0] & 1) != 0;
  const int fail_at = (data[0] & 2) != 0 ? data[0] >> 2 : -1;
  const long before = failing_malloc::blocks_alive;
  failing_malloc::allocations_left = fail_at;
  const Status s = use(file, verify);
  const bool failed = failing_malloc::allocations_left == 0;
  failing_malloc::allocations_left = -1;
  require(failing_malloc::blocks_alive == before);
  require(s.code() != Errc::out_of_memory || failed);
  char text[128];
  s.print(text, sizeof text);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::minstd_rand random(seed);
  auto below = [&random](std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random() >> 4) % n; };
  std::uint8_t control = size > 0 ? data[0] : 1;
  std::string file(reinterpret_cast<const char*>(data) + (size > 0), size - (size > 0));
  const std::size_t most = max_size > 16 ? max_size - 1 : 16;
  const std::size_t what = below(16);
  if (what == 0) control = static_cast<std::uint8_t>(random() >> 8);
  if (file.size() < 16 || below(512) == 0) {
    file = toy_file(static_cast<unsigned>(below(8)));
  } else if (what < 2) {
    mutate(file, most);
  } else {
    std::string header, bytes;
    split(file, header, bytes);
    if (what < 4) {
      mutate(bytes, most);
    } else if (what < 8) {
      mutate(header, most);
    } else {
      for (std::size_t n = 1 + below(3); n != 0; --n) {
        const std::string token = tokens[below(sizeof tokens / sizeof *tokens)];
        const std::size_t at = below(header.size() + 1), other = below(header.size() + 1);
        if (what < 11) header.insert(at, token);
        if (what == 11 || what == 12) header.replace(at, token.size(), token);
        if (what == 13) header.erase(at, below(40));
        if (what == 14) header.insert(at, header.substr(other, below(80)));
        if (what == 15) {  // one more tensor or key, with the layout kept right
          const std::string end = std::to_string(bytes.size()), name = token + std::to_string(below(100));
          const std::size_t close = header.find_last_of('}');
          const std::size_t count = 1 + below(8);
          if (close != std::string::npos && name.find_first_of("\"\\{}[]") == std::string::npos)
            header.insert(close, ",\"" + name + "\":{\"dtype\":\"" + (below(2) ? "U8" : "I8") + "\",\"shape\":[" +
                                     std::to_string(count) + "],\"data_offsets\":[" + end + ',' +
                                     std::to_string(bytes.size() + count) + "]}");
          bytes.append(count, static_cast<char>(below(2)));
        }
      }
    }
    file = below(16) == 0 ? builder::little_endian(std::uint64_t{header.size()}) + header + bytes
                          : builder::File::assemble(header, bytes);
  }
  if (file.size() > most) file.resize(most);
  data[0] = control;
  std::memcpy(data + 1, file.data(), file.size());
  return file.size() + 1;
}
