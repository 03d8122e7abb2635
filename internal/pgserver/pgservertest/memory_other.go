//go:build !linux

package pgservertest

// memoryDir is a directory whose files are in memory: none that is known.
func memoryDir() string { return "" }
