package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// reloadHook applies some keys of a changed configuration to a gateway that
// runs.
type reloadHook struct {
	keys []string
	// always: also when none of the keys has changed, because what they name may
	// have (files of certificates).
	always bool
	apply  func(next *Config) error
}

// reloader is what SIGHUP does: the configuration is read again, the file and the
// environment as it was at the start, and what can be changed without a restart
// is changed. What cannot is named, and stays as it was until then.
type reloader struct {
	running *Config // as far as it is in force
	read    func() (*Config, error)
	hooks   []reloadHook
	logger  *slog.Logger
}

// run reloads on every SIGHUP until ctx ends. A configuration that is refused
// changes nothing.
func (r *reloader) run(ctx context.Context) (stop func()) {
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hups:
				notify(r.logger, notifyReloading())
				r.reload()
				notify(r.logger, notifyReady)
			}
		}
	}()
	return func() {
		signal.Stop(hups)
		cancel()
		<-done
	}
}

// reload reads the configuration and applies it.
func (r *reloader) reload() {
	next, err := r.read()
	if err != nil {
		r.logger.Error("the configuration has not been reloaded, nothing has changed", "error", err)
		return
	}
	changed := changedKeys(r.running, next)
	var reloaded []string
	for _, hook := range r.hooks {
		due := slices.DeleteFunc(slices.Clone(hook.keys), func(key string) bool { return !slices.Contains(changed, key) })
		if len(due) == 0 && !hook.always {
			continue
		}
		if err := hook.apply(next); err != nil {
			r.logger.Error("not reloaded", "keys", hook.keys, "error", err)
			continue
		}
		reloaded = append(reloaded, due...)
	}
	copyKeys(r.running, next, reloaded)
	r.logger.Info("configuration reloaded", "changed", reloaded)
	if waiting := changedKeys(r.running, next); len(waiting) > 0 {
		r.logger.Warn("these keys have changed and need a restart", "keys", waiting)
	}
}

// eachKey calls visit with every key and the places of its value in both
// configurations. A key is a field's name in the file's spelling; the nodes are
// one.
func eachKey(a, b *Config, visit func(key string, a, b reflect.Value)) {
	var walk func(prefix string, a, b reflect.Value)
	walk = func(prefix string, a, b reflect.Value) {
		for i := range a.NumField() {
			field := a.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			key := prefix + snakeCase(field.Name)
			if field.Type.Kind() == reflect.Struct {
				walk(key+".", a.Field(i), b.Field(i))
				continue
			}
			visit(key, a.Field(i), b.Field(i))
		}
	}
	walk("", reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

// changedKeys are the keys whose values differ.
func changedKeys(a, b *Config) (keys []string) {
	eachKey(a, b, func(key string, a, b reflect.Value) {
		// No users and an empty list of them are the same.
		if a.Kind() == reflect.Slice && a.Len()+b.Len() == 0 {
			return
		}
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			keys = append(keys, key)
		}
	})
	return keys
}

// copyKeys takes the values of some keys over.
func copyKeys(to, from *Config, keys []string) {
	eachKey(to, from, func(key string, to, from reflect.Value) {
		if slices.Contains(keys, key) {
			to.Set(from)
		}
	})
}

// snakeCase is a field's name as the file writes it: MaxPortals, max_portals;
// URL, url.
func snakeCase(name string) string {
	var out strings.Builder
	runes := []rune(name)
	for i, c := range runes {
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(c))
	}
	return out.String()
}
