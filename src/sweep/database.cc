// Fills the database in one transaction, beside the one that it replaces.
#include "sweep/database.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include <initializer_list>
#include <memory>

#include "base/file.h"
#include "base/text.h"
#include "receipt/sealed.h"

namespace pb::sweep {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kTables = R"(
CREATE TABLE cells (
  name TEXT PRIMARY KEY, key TEXT NOT NULL, scenario TEXT, model TEXT, engines TEXT, settings TEXT,
  model_path TEXT, candidate TEXT, reference TEXT, threads INTEGER,
  state TEXT NOT NULL, exit_code INTEGER NOT NULL, why TEXT,
  tokens_equal INTEGER, n_positions INTEGER, compared INTEGER, expected INTEGER, unit TEXT,
  mean_kl REAL, worst_kl REAL, worst_rel_l2 REAL, max_abs REAL, least_cosine REAL,
  first_divergence TEXT, blame TEXT, model_sha256 TEXT,
  started TEXT, wall_seconds REAL, host TEXT, command TEXT, receipt TEXT, receipt_file_sha256 TEXT);
CREATE TABLE reasons (cell TEXT NOT NULL REFERENCES cells(name), outcome TEXT, code TEXT, text TEXT);
CREATE TABLE positions (
  cell TEXT NOT NULL REFERENCES cells(name), prompt INTEGER, position INTEGER, phase TEXT, token INTEGER,
  kl REAL, rel_l2 REAL, max_abs REAL, cosine REAL, top1_candidate INTEGER, top1_reference INTEGER,
  above_limit INTEGER);
)";

class Database {
 public:
  static Result<std::unique_ptr<Database>> Create(const fs::path& path) {
    std::unique_ptr<Database> made(new Database(path));
    if (sqlite3_open_v2(path.c_str(), &made->db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr) !=
        SQLITE_OK)
      return made->Failed();
    // Nobody reads it before it is whole, and then it has its name.
    PB_TRY(made->Execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;"));
    PB_TRY(made->Execute(kTables));
    return made;
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { sqlite3_close(db_); }

  Status Execute(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return Failed();
    return {};
  }

  // A row of a table, in the order of its columns.
  Status Insert(const char* table, std::initializer_list<Json> values) {
    std::string sql = fmt::format("INSERT INTO {} VALUES (?", table);
    for (size_t i = 1; i < values.size(); ++i) sql += ",?";
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v2(db_, (sql + ")").c_str(), -1, &raw, nullptr) != SQLITE_OK) return Failed();
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(raw, sqlite3_finalize);
    int column = 0;
    for (const Json& value : values) Bind(raw, ++column, value);
    if (sqlite3_step(raw) != SQLITE_DONE) return Failed();
    return {};
  }

 private:
  explicit Database(fs::path path) : path_(std::move(path)) {}

  static void Bind(sqlite3_stmt* statement, int column, const Json& value) {
    if (value.is_boolean()) {
      sqlite3_bind_int(statement, column, value.get<bool>() ? 1 : 0);
    } else if (value.is_number_integer()) {
      sqlite3_bind_int64(statement, column, value.get<int64_t>());
    } else if (value.is_number()) {
      sqlite3_bind_double(statement, column, value.get<double>());
    } else if (value.is_string()) {
      const std::string text = EscapeInvalid(value.get<std::string>());
      sqlite3_bind_text64(statement, column, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
    } else {
      sqlite3_bind_null(statement, column);
    }
  }

  Error Failed() const {
    return MakeError(Code::kIo, "{}: {}", path_.string(), db_ ? sqlite3_errmsg(db_) : "no memory");
  }

  fs::path path_;
  sqlite3* db_ = nullptr;
};

std::string CommandOf(const CellResult& result) {
  std::string command;
  for (const std::string& word : result.command) command += (command.empty() ? "" : " ") + ShellQuote(word);
  return command;
}

Status AddPositions(const fs::path& file, const std::string& name, Database* database) {
  constexpr uint64_t kMaxReceipt = 512ull << 20;
  PB_ASSIGN(const std::string text, ReadFile(file, kMaxReceipt));
  const receipt::Opened opened = receipt::Open(text);
  if (!opened.object.is_object()) return {};
  for (const Json& p : opened.object["positions"])
    PB_TRY(database->Insert("positions", {name, p["prompt"], p["position"], p["phase"], p["token"], p["kl"],
                                          p["rel_l2"], p["max_abs"], p["cosine"], p["top1"]["candidate"],
                                          p["top1"]["reference"], p["above_limit"]}));
  return {};
}

Status AddCell(const Folder& folder, const Cell& cell, const CellResult& r, Database* database) {
  const Json f = r.figures.is_object() ? r.figures : Json::object();
  const auto figure = [&](const char* key) { return f.contains(key) ? f[key] : Json(nullptr); };
  const auto file = r.files.find(kReceiptFile);
  const bool has_receipt = f.size() > 0 && file != r.files.end();
  const fs::path receipt = folder.cell(cell.name) / kReceiptFile;
  PB_TRY(database->Insert("cells", {cell.name,
                                    cell.key,
                                    cell.scenario,
                                    cell.model,
                                    cell.engines,
                                    cell.settings,
                                    cell.model_path,
                                    cell.candidate,
                                    cell.reference,
                                    cell.threads,
                                    r.state,
                                    r.exit_code,
                                    r.why,
                                    figure("tokens_equal"),
                                    figure("n_positions"),
                                    figure("compared"),
                                    figure("expected"),
                                    figure("unit"),
                                    figure("mean_kl"),
                                    figure("worst_kl"),
                                    figure("worst_rel_l2"),
                                    figure("max_abs"),
                                    figure("least_cosine"),
                                    figure("first_divergence"),
                                    figure("blame"),
                                    figure("model_sha256"),
                                    r.started.empty() ? Json(nullptr) : Json(r.started),
                                    r.wall_seconds,
                                    r.host,
                                    CommandOf(r),
                                    has_receipt ? Json(receipt.string()) : Json(nullptr),
                                    has_receipt ? Json(file->second) : Json(nullptr)}));
  if (f.contains("reasons"))
    for (const Json& reason : f["reasons"])
      PB_TRY(database->Insert("reasons", {cell.name, reason["outcome"], reason["code"], reason["text"]}));
  return has_receipt ? AddPositions(receipt, cell.name, database) : Status();
}

}  // namespace

Status WriteDatabase(const Folder& folder, std::span<const Cell> cells, std::span<const CellResult> results) {
  const fs::path path = folder.root / kDatabaseFile,
                 temporary = folder.root / fmt::format(".{}-{}", kDatabaseFile, getpid());
  std::error_code error;
  fs::remove(temporary, error);
  const Status written = [&]() -> Status {
    PB_ASSIGN(const std::unique_ptr<Database> database, Database::Create(temporary));
    for (size_t i = 0; i < cells.size(); ++i) PB_TRY(AddCell(folder, cells[i], results[i], database.get()));
    return database->Execute("COMMIT;");
  }();
  if (!written.ok()) {
    fs::remove(temporary, error);
    return written;
  }
  fs::rename(temporary, path, error);
  if (error) return MakeError(Code::kIo, "{}: {}", path.string(), error.message());
  return {};
}

}  // namespace pb::sweep
