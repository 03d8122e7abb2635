package drivers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/lib/pq"
)

// sqlDriver is a driver of database/sql; options go into the connection's URL.
func sqlDriver(name, module, registered, options string) driver {
	return goDriver(name, module, func(s *script) {
		db, err := sql.Open(registered, s.to.url()+options)
		if err != nil {
			s.report(err)
			return
		}
		defer db.Close()
		d := &sqlScript{script: s, db: db, isPq: registered == "postgres"}
		d.section("connect", func() error { return db.PingContext(s.ctx) })
		d.section("parameters", d.parameters)
		d.section("prepared", d.prepared)
		d.section("transfer", d.transfer)
		d.section("check", d.check)
		d.section("savepoint", d.savepoint)
		d.section("batch", d.batch)
		d.section("cursor", d.cursor)
		if d.isPq {
			d.section("copy", d.copy)
		}
		d.section("cancel", d.cancel)
		d.section("errors", d.errors)
		d.section("reconnect", d.reconnect)
	})
}

type sqlScript struct {
	*script
	db   *sql.DB
	isPq bool
}

// sqlQuerier is what a database, a connection and a transaction have in common.
type sqlQuerier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (d *sqlScript) exec(q sqlQuerier, query string, args ...any) error {
	result, err := q.ExecContext(d.ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	d.show(n)
	return err
}

func (d *sqlScript) rows(q sqlQuerier, query string, args ...any) error {
	rows, err := q.QueryContext(d.ctx, query, args...)
	if err != nil {
		return err
	}
	return d.printRows(rows)
}

func (d *sqlScript) printRows(rows *sql.Rows) error {
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	for _, column := range types {
		length, hasLength := column.Length()
		precision, scale, hasPrecision := column.DecimalSize()
		d.show(column.Name(), column.DatabaseTypeName(), length, hasLength, precision, scale, hasPrecision, column.ScanType())
	}
	for {
		for rows.Next() {
			values, pointers := make([]any, len(types)), make([]any, len(types))
			for n := range values {
				pointers[n] = &values[n]
			}
			if err := rows.Scan(pointers...); err != nil {
				return err
			}
			for n, value := range values {
				switch value := value.(type) {
				case time.Time:
					values[n] = value.UTC()
				case []byte:
					values[n] = string(value)
				}
			}
			d.show(fmt.Sprintf("%T %q", values[len(values)-1], fmt.Sprint(values...)))
		}
		if !rows.NextResultSet() {
			return rows.Err()
		}
		d.show("next result")
	}
}

func (d *sqlScript) balances() error {
	return errors.Join(d.rows(d.db, "select balance from accounts where id = $1", "alice"), d.rows(d.db, "select balance from accounts where id = $1", "bob"))
}

func (d *sqlScript) parameters() error {
	insert := "insert into types_demo (id, i, b, t, u, n, ts, f, d, y, j, a, ta) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	err := d.exec(d.db, insert, "t-1", -2147483648, int64(9223372036854775807), strange, "0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69",
		"12345678901234567890.000123456789", time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC), true, 0.1, []byte{0, 1, 255},
		`{"a": [1, null, "ü"]}`, "{1,NULL,3}", pq.Array([]string{"x", `a "b", {c} \`}))
	if err != nil {
		return err
	}
	if err := d.exec(d.db, insert, "t-2", nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil); err != nil {
		return err
	}
	for _, id := range []string{"t-1", "t-2"} {
		if err := d.rows(d.db, "select * from types_demo where id = $1", id); err != nil {
			return err
		}
	}
	d.fails(d.rows(d.db, "select balance from accounts where id = 'alice' and balance = $1", "x"))
	d.fails(d.rows(d.db, "select $1::int + 1", "7"))
	return nil
}

func (d *sqlScript) prepared() error {
	statement, err := d.db.PrepareContext(d.ctx, "update accounts set balance = balance + $1 where id = $2 returning id, balance")
	if err != nil {
		return err
	}
	for n := range 20 {
		var id string
		var balance int64
		if err := statement.QueryRowContext(d.ctx, n, key("d", n)).Scan(&id, &balance); err != nil {
			return err
		}
		d.show(id, balance)
	}
	return statement.Close()
}

func (d *sqlScript) begin(run func(tx *sql.Tx) error) error {
	tx, err := d.db.BeginTx(d.ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	if err := run(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (d *sqlScript) transfer() error {
	err := d.begin(func(tx *sql.Tx) error {
		return errors.Join(d.exec(tx, "update accounts set balance = balance - $1 where id = $2", 100, "alice"),
			d.exec(tx, "update accounts set balance = balance + $1 where id = $2", 100, "bob"))
	})
	return errors.Join(err, d.balances())
}

func (d *sqlScript) check() error {
	d.fails(d.begin(func(tx *sql.Tx) error {
		if err := d.exec(tx, "update accounts set balance = balance + $1 where id = $2", 5000, "bob"); err != nil {
			return err
		}
		d.fails(d.exec(tx, "update accounts set balance = balance - $1 where id = $2", 5000, "alice"))
		d.fails(d.exec(tx, "select 1"))
		return nil // and commit all the same
	}))
	return d.balances()
}

func (d *sqlScript) savepoint() error {
	err := d.begin(func(tx *sql.Tx) error {
		if err := errors.Join(d.exec(tx, "update accounts set balance = balance - 1 where id = 'alice'"), d.exec(tx, "savepoint s")); err != nil {
			return err
		}
		d.fails(d.exec(tx, "insert into accounts values ($1, $2)", "bob", 1))
		return errors.Join(d.exec(tx, "rollback to savepoint s"), d.exec(tx, "update accounts set balance = balance + 1 where id = 'bob'"),
			d.exec(tx, "release savepoint s"))
	})
	return errors.Join(err, d.balances())
}

// batch is all that database/sql has: several statements in one string, and one statement many times.
func (d *sqlScript) batch() error {
	if d.isPq {
		if err := d.rows(d.db, "select 1; select 'b'; update accounts set balance = balance where id = 'alice'"); err != nil {
			return err
		}
	}
	return d.begin(func(tx *sql.Tx) error {
		statement, err := tx.PrepareContext(d.ctx, "insert into accounts values ($1, $2)")
		if err != nil {
			return err
		}
		for n := range 12 {
			if _, err := statement.ExecContext(d.ctx, key("k", n), n); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *sqlScript) cursor() error {
	return d.begin(func(tx *sql.Tx) error {
		if err := d.exec(tx, "declare part cursor for select quantity from orders where customer = 'carol' order by order_id"); err != nil {
			return err
		}
		return errors.Join(d.rows(tx, "fetch 5 from part"), d.rows(tx, "fetch 2 from part"))
	})
}

func (d *sqlScript) copy() error {
	copyIn := func(rows [][]any) error {
		return d.begin(func(tx *sql.Tx) error {
			statement, err := tx.PrepareContext(d.ctx, `copy accounts (id, balance) from stdin`)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if _, err := statement.ExecContext(d.ctx, row...); err != nil {
					return errors.Join(err, statement.Close())
				}
			}
			_, err = statement.ExecContext(d.ctx)
			return errors.Join(err, statement.Close())
		})
	}
	rows := make([][]any, 10)
	for n := range rows {
		rows[n] = []any{key("c", n), n}
	}
	if err := copyIn(rows); err != nil {
		return err
	}
	d.fails(copyIn([][]any{{"f-1", 1}, {"f-2", -1}}))
	return d.balances()
}

func (d *sqlScript) cancel() error {
	short, cancel := context.WithTimeout(d.ctx, 300*time.Millisecond)
	defer cancel()
	_, err := d.db.ExecContext(short, "select pg_sleep(30)")
	d.show(err != nil, short.Err())
	if d.isPq {
		d.report(err)
	}
	return d.rows(d.db, "select 1")
}

func (d *sqlScript) errors() error {
	for _, statement := range wrongStatements {
		d.fails(d.exec(d.db, statement))
		d.fails(d.rows(d.db, statement))
	}
	d.fails(d.exec(d.db, ""))
	return nil
}

func (d *sqlScript) reconnect() error {
	conn, err := d.db.Conn(d.ctx)
	if err != nil {
		return err
	}
	if err := d.exec(conn, "set statement_timeout = '7s'"); err != nil {
		return err
	}
	// Thrown away by the pool, as a broken one is.
	_ = conn.Raw(func(any) error { return errBroken })
	_ = conn.Close() // already returned
	d.db.SetMaxIdleConns(0)
	names := []string{}
	for range 3 {
		var timeout string
		if err := d.db.QueryRowContext(d.ctx, "show statement_timeout").Scan(&timeout); err != nil {
			return err
		}
		names = append(names, timeout)
	}
	slices.Sort(names)
	d.show(names)
	return d.balances()
}

var errBroken = errors.New("as if broken")
