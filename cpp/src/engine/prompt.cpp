#include "engine/prompt.h"

#include <cstring>

#include "text/chat_template.h"

namespace vila {
namespace {

constexpr std::string_view kVideoMark = "<video>";
constexpr std::string_view kPlaceholder = "<image-placeholder>";

std::size_t count(std::string_view text, std::string_view mark) {
  std::size_t n = 0;
  for (std::size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, at + mark.size())) ++n;
  return n;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

std::string repeat(std::string_view text, std::size_t n) {
  std::string result;
  for (std::size_t i = 0; i < n; ++i) result += text;
  return result;
}

void check_image(ImageView image) {
  if (image.rgb == nullptr || image.width < 1 || image.height < 1 || image.row_bytes < std::int64_t{3} * image.width) {
    throw InvalidArgument("[prompt] picture: expected at least 1 x 1 pixels of RGB, got " +
                          std::to_string(image.width) + " x " + std::to_string(image.height) + " with rows of " +
                          std::to_string(image.row_bytes) + " bytes");
  }
}

// Replaces marks in order of appearance and lists the media they stand for.
class MediaMarks {
 public:
  explicit MediaMarks(const Prompt& prompt) : prompt_(prompt) {}

  std::string resolve(std::string_view text) {
    std::string result;
    while (!text.empty()) {
      const std::size_t image = text.find(kImageMark);
      const std::size_t video = keep_video_marks() ? std::string_view::npos : text.find(kVideoMark);
      const std::size_t at = std::min(image, video);
      result += text.substr(0, at);
      if (at == std::string_view::npos) break;
      if (at == image) {
        text.remove_prefix(at + kImageMark.size());
        if (image_ < prompt_.images.size()) media.push_back(prompt_.images[image_]);
        ++image_;
        result += kImageMark;
      } else {
        text.remove_prefix(at + kVideoMark.size());
        if (text.starts_with('\n')) text.remove_prefix(1);
        if (video_ < prompt_.videos.size()) {
          const auto& frames = prompt_.videos[video_];
          if (frames.empty()) {
            throw InvalidArgument("[prompt] video " + std::to_string(video_) + ": expected at least 1 frame, got 0");
          }
          media.insert(media.end(), frames.begin(), frames.end());
          result += repeat("<image>\n", frames.size());
        }
        ++video_;
      }
    }
    return result;
  }

  void finish() const {
    compare("<image>", image_, prompt_.images.size(), "pictures");
    compare("<video>", video_, prompt_.videos.size(), "videos");
    for (const ImageView& view : media) check_image(view);
  }

  std::vector<ImageView> media;

 private:
  [[nodiscard]] bool keep_video_marks() const { return prompt_.reference_compat && prompt_.videos.empty(); }
  static void compare(const char* mark, std::size_t marks, std::size_t given, const char* what) {
    if (marks == given) return;
    throw InvalidArgument("[prompt] " + std::string(mark) + " marks and " + what + " differ: expected " +
                          std::to_string(marks) + " " + what + " for " + std::to_string(marks) + " marks, got " +
                          std::to_string(given));
  }

  const Prompt& prompt_;
  std::size_t image_ = 0, video_ = 0;
};

}  // namespace

std::string tag_media(std::string_view text, std::size_t n_images, std::size_t n_videos) {
  std::string tags;
  if (count(text, kVideoMark) == 0) tags += repeat("<video>\n", n_videos);
  if (count(text, kImageMark) == 0 && count(text, kPlaceholder) == 0) tags += repeat("<image>\n", n_images);
  return tags + std::string(text);
}

ResolvedPrompt resolve_prompt(const Prompt& prompt, const Tokenizer& tokenizer, const std::string& conv_mode) {
  std::vector<ChatMessage> messages;
  std::size_t image_marks = 0;
  std::size_t video_marks = 0;
  for (const Message& message : prompt.messages) {
    messages.push_back({message.role, message.text});
    std::string& text = messages.back().text;
    replace_all(text, kPlaceholder, kImageMark);
    image_marks += count(text, kImageMark);
    video_marks += count(text, kVideoMark);
  }
  // Media without any mark go in front of the first question, as the reference's command line does.
  for (ChatMessage& message : messages) {
    if (message.role != "user") continue;
    message.text = tag_media(message.text, image_marks == 0 ? prompt.images.size() : 0,
                             video_marks == 0 ? prompt.videos.size() : 0);
    break;
  }
  MediaMarks marks(prompt);
  for (ChatMessage& message : messages) message.text = marks.resolve(message.text);
  marks.finish();

  ResolvedPrompt resolved;
  resolved.text = ChatTemplate::by_name(conv_mode).render(messages, prompt.system);
  resolved.ids = encode_with_images(tokenizer, resolved.text);
  resolved.media = std::move(marks.media);
  return resolved;
}

std::uint64_t hash_image(ImageView image) {
  // Multiply-mix over 8-byte words; the size is mixed in first.
  constexpr std::uint64_t kMultiplier = 0x9fb21c651e98df25ULL;
  std::uint64_t hash = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(image.width)) << 32 |
                        static_cast<std::uint32_t>(image.height)) *
                       kMultiplier;
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  for (std::int32_t y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.rgb + y * image.row_bytes;
    const std::int64_t bytes = std::int64_t{3} * image.width;
    for (std::int64_t i = 0; i < bytes; i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, row + i, static_cast<std::size_t>(std::min<std::int64_t>(8, bytes - i)));
      mix(word);
    }
  }
  return hash;
}

}  // namespace vila
