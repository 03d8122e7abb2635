//go:build unix

package pgservertest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/internal/pgserver/pgservertest"
)

func TestServersAreUsable(t *testing.T) {
	set := pgservertest.StartForTest(t, "a", "b")
	ctx := context.Background()
	for _, name := range []string{"a", "b"} {
		conn, err := pgx.Connect(ctx, set.URL(name))
		if err != nil {
			t.Fatal(err)
		}
		var super bool
		var fsync, prepared string
		err = conn.QueryRow(ctx, `SELECT rolsuper, current_setting('fsync'), current_setting('max_prepared_transactions')
			FROM pg_roles WHERE rolname = current_user`).Scan(&super, &fsync, &prepared)
		if err != nil {
			t.Fatal(err)
		}
		if super || fsync != "on" || prepared != "200" {
			t.Errorf("%s: superuser %v, fsync %s, max_prepared_transactions %s", name, super, fsync, prepared)
		}
		if _, err := conn.Exec(ctx, "CREATE TABLE public.t (a int)"); err != nil {
			t.Errorf("%s: the owner cannot make tables: %v", name, err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestNewDatabasesAreApart(t *testing.T) {
	set := pgservertest.Start(t, pgservertest.Options{FsyncOff: true}, "a")
	ctx := context.Background()
	for range 2 {
		url, superURL := set.NewDatabase(t, "a")
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "CREATE TABLE public.t (a int)"); err != nil {
			t.Error(err)
		}
		var fsync string
		if err := conn.QueryRow(ctx, "SHOW fsync").Scan(&fsync); err != nil || fsync != "off" {
			t.Errorf("fsync is %q, %v", fsync, err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
		super, err := pgx.Connect(ctx, superURL)
		if err != nil {
			t.Fatal(err)
		}
		if err := super.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
