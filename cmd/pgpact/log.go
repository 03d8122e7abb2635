package main

import (
	"io"
	"log/slog"
)

// newLogger makes the log that the configuration asks for.
func newLogger(w io.Writer, cfg *Config) *slog.Logger {
	var level slog.Level
	// The key's own check has accepted the word, and these are slog's.
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
