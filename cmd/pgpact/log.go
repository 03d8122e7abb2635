package main

import (
	"io"
	"log/slog"

	"github.com/pgpact/pgpact/gateway"
)

// newLogger makes the log that the configuration asks for.
func newLogger(w io.Writer, cfg *Config) *slog.Logger {
	return newLeveledLogger(w, cfg, levelOf(cfg))
}

// levelOf is the configured level.
func levelOf(cfg *Config) *slog.LevelVar {
	level := &slog.LevelVar{}
	// The key's own check has accepted the word, and these are slog's.
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level.Set(slog.LevelInfo)
	}
	return level
}

// newLeveledLogger makes a log whose level can change.
func newLeveledLogger(w io.Writer, cfg *Config, level *slog.LevelVar) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// loggingOf is what the configuration says of slow statements and commits.
func loggingOf(cfg *Config) gateway.Logging {
	return gateway.Logging{SlowStatement: cfg.Log.SlowStatement, SlowCommit: cfg.Log.SlowCommit, Statements: gateway.StatementText(cfg.Log.Statements)}
}
