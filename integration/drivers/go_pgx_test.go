package drivers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgxQuerier is what a connection, a pool and a transaction have in common.
type pgxQuerier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Begin(ctx context.Context) (pgx.Tx, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error)
}

// pgxModes are all of pgx's ways to execute a query.
var pgxModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// pgxNative runs the script on one connection in one mode.
func pgxNative(mode pgx.QueryExecMode) driver {
	return goDriver("pgx "+mode.String(), "github.com/jackc/pgx/v5", func(s *script) {
		config, err := pgx.ParseConfig(s.to.url())
		if err != nil {
			s.report(err)
			return
		}
		config.DefaultQueryExecMode = mode
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.show("notice:", n.Severity, n.Code, n.Message) }
		conn, err := pgx.ConnectConfig(s.ctx, config)
		if err != nil {
			s.report(err)
			return
		}
		defer func() { _ = conn.Close(s.ctx) }() // the script is over
		s.section("connect", func() error { return s.pgxConnect(conn) })
		p := &pgxScript{script: s, q: conn}
		p.run()
		s.section("cancel", func() error { return s.pgxCancel(config) })
		s.section("errors", func() error { return p.errors() })
		s.section("reconnect", func() error { return s.pgxReconnect(conn, config) })
	})
}

// pgxPool runs the script on a pool, and many transactions at once.
func pgxPool() driver {
	return goDriver("pgxpool", "github.com/jackc/pgx/v5", func(s *script) {
		pool, err := pgxpool.New(s.ctx, s.to.url())
		if err != nil {
			s.report(err)
			return
		}
		defer pool.Close()
		s.section("connect", func() error { return pool.Ping(s.ctx) })
		p := &pgxScript{script: s, q: pool}
		p.run()
		s.section("errors", func() error { return p.errors() })
		s.section("reconnect", func() error {
			pool.Reset()
			var wait sync.WaitGroup
			failed := make([]error, 16)
			for n := range failed {
				wait.Go(func() {
					failed[n] = pgx.BeginFunc(s.ctx, pool, func(tx pgx.Tx) error {
						_, err := tx.Exec(s.ctx, "update accounts set balance = balance - 1 where id = $1", key("d", n))
						if err != nil {
							return err
						}
						_, err = tx.Exec(s.ctx, "update accounts set balance = balance + 1 where id = $1", key("d", n+16))
						return err
					})
				})
			}
			wait.Wait()
			s.show(errors.Join(failed...))
			return nil
		})
	})
}

func (s *script) pgxConnect(conn *pgx.Conn) error {
	for _, name := range []string{"server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle", "IntervalStyle",
		"TimeZone", "integer_datetimes", "standard_conforming_strings", "application_name", "in_hot_standby", "default_transaction_read_only"} {
		s.show(name, conn.PgConn().ParameterStatus(name))
	}
	s.show(string(conn.PgConn().TxStatus()), conn.PgConn().PID() != 0)
	return conn.Ping(s.ctx)
}

// pgxScript is the part of the script that connections and pools share.
type pgxScript struct {
	*script
	q pgxQuerier
}

func (p *pgxScript) run() {
	p.section("parameters", p.parameters)
	p.section("prepared", p.prepared)
	p.section("transfer", func() error { return p.transfer(100) })
	p.section("check", p.check)
	p.section("savepoint", p.savepoint)
	p.section("batch", p.batch)
	p.section("cursor", p.cursor)
	p.section("copy", p.copy)
}

func (p *pgxScript) exec(q pgxQuerier, sql string, args ...any) error {
	tag, err := q.Exec(p.ctx, sql, args...)
	if err == nil {
		p.show(tag)
	}
	return err
}

// rows prints the rows of a query as the driver's own types.
func (p *pgxScript) rows(q pgxQuerier, sql string, args ...any) error {
	rows, err := q.Query(p.ctx, sql, args...)
	if err != nil {
		return err
	}
	return p.printRows(rows)
}

func (p *pgxScript) printRows(rows pgx.Rows) error {
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		for n, value := range values {
			if moment, is := value.(time.Time); is {
				values[n] = moment.UTC()
			}
		}
		p.show(fmt.Sprintf("%T %v", values[len(values)-1], values))
	}
	for _, field := range rows.FieldDescriptions() {
		p.show(field.Name, field.DataTypeOID, field.DataTypeSize, field.TypeModifier, field.Format, field.TableAttributeNumber)
	}
	p.show(rows.CommandTag(), rows.Err())
	return nil
}

func (p *pgxScript) balances() error {
	for _, who := range []string{"alice", "bob"} {
		var balance int64
		if err := p.q.QueryRow(p.ctx, "select balance from accounts where id = $1", who).Scan(&balance); err != nil {
			return err
		}
		p.show(who, balance)
	}
	return nil
}

func (p *pgxScript) parameters() error {
	var number pgtype.Numeric
	if err := number.Scan("12345678901234567890.000123456789"); err != nil {
		return err
	}
	id := pgtype.UUID{Bytes: [16]byte{0x0b, 0x7e, 0x3f, 0x5c, 0x4c, 0x8e, 0x4d, 0x3b, 0x9a, 0x6e, 0x1f, 0x2d, 0x3c, 0x4b, 0x5a, 0x69}, Valid: true}
	moment := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	one, three, x, braces := int32(1), int32(3), "x", `a "b", {c} \`
	insert := "insert into types_demo (id, i, b, t, u, n, ts, f, d, y, j, a, ta) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
	err := p.exec(p.q, insert, "t-1", int32(-2147483648), int64(9223372036854775807), strange, id, number, moment, true, 0.1, []byte{0, 1, 255},
		`{"a": [1, null, "ü"]}`, []*int32{&one, nil, &three}, []*string{&x, nil, &braces})
	if err != nil {
		return err
	}
	if err := p.exec(p.q, insert, "t-2", nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil); err != nil {
		return err
	}
	for range 2 {
		for _, id := range []string{"t-1", "t-2"} {
			if err := p.rows(p.q, "select * from types_demo where id = $1", id); err != nil {
				return err
			}
		}
	}
	p.fails(p.rows(p.q, "select balance from accounts where id = $1", 7))
	p.fails(p.rows(p.q, "select $1::int + $2::int", 1, 2))
	return nil
}

func (p *pgxScript) prepared() error {
	for round := range 2 {
		for n := range 10 {
			if err := p.rows(p.q, "update accounts set balance = balance + $1 where id = $2 returning id, balance", n, key("d", n+10*round)); err != nil {
				return err
			}
		}
	}
	if conn, is := p.q.(*pgx.Conn); is {
		described, err := conn.Prepare(p.ctx, "mine", "select balance from accounts where id = $1 and balance > $2")
		if err != nil {
			return err
		}
		p.show(described.ParamOIDs, len(described.Fields))
		if err := p.rows(conn, "mine", "alice", 0); err != nil {
			return err
		}
		return conn.Deallocate(p.ctx, "mine")
	}
	return nil
}

func (p *pgxScript) transfer(amount int) error {
	err := pgx.BeginFunc(p.ctx, p.q, func(tx pgx.Tx) error {
		if err := p.exec(tx, "update accounts set balance = balance - $1 where id = $2", amount, "alice"); err != nil {
			return err
		}
		return p.exec(tx, "update accounts set balance = balance + $1 where id = $2", amount, "bob")
	})
	if err != nil {
		return err
	}
	return p.balances()
}

func (p *pgxScript) check() error {
	tx, err := p.q.Begin(p.ctx)
	if err != nil {
		return err
	}
	if err := p.exec(tx, "update accounts set balance = balance + $1 where id = $2", 5000, "bob"); err != nil {
		return err
	}
	p.fails(p.exec(tx, "update accounts set balance = balance - $1 where id = $2", 5000, "alice"))
	p.fails(p.exec(tx, "select 1"))
	p.fails(tx.Commit(p.ctx)) // pgx sees the tag ROLLBACK
	return p.balances()
}

func (p *pgxScript) savepoint() error {
	err := pgx.BeginFunc(p.ctx, p.q, func(tx pgx.Tx) error {
		if err := p.exec(tx, "update accounts set balance = balance - 1 where id = $1", "alice"); err != nil {
			return err
		}
		p.fails(pgx.BeginFunc(p.ctx, tx, func(nested pgx.Tx) error {
			return p.exec(nested, "insert into accounts values ($1, $2)", "bob", 1)
		}))
		return pgx.BeginFunc(p.ctx, tx, func(nested pgx.Tx) error {
			return p.exec(nested, "update accounts set balance = balance + 1 where id = $1", "bob")
		})
	})
	if err != nil {
		return err
	}
	return p.balances()
}

func (p *pgxScript) batch() error {
	batch := &pgx.Batch{}
	for n := range 300 {
		batch.Queue("insert into accounts values ($1, $2)", fmt.Sprintf("k-%03d", n), n)
	}
	batch.Queue("select balance from accounts where id = $1", "k-299").QueryRow(func(row pgx.Row) error {
		var balance int
		defer func() { p.show("k-299", balance) }()
		return row.Scan(&balance)
	})
	if err := p.q.SendBatch(p.ctx, batch).Close(); err != nil {
		return err
	}
	// All or nothing: up to the Sync it is one transaction.
	wrong := &pgx.Batch{}
	wrong.Queue("update accounts set balance = balance + 1 where id = $1", "alice")
	wrong.Queue("update accounts set balance = balance - 100000 where id = $1", "bob")
	wrong.Queue("update accounts set balance = balance + 1 where id = $1", "alice")
	p.fails(p.q.SendBatch(p.ctx, wrong).Close())
	rows, err := p.q.Query(p.ctx, "select id from accounts where id = any($1)", []string{"k-000", "k-001", "k-002", "k-003", "k-004", "no such"})
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	slices.Sort(ids)
	p.show(ids, err)
	return p.balances()
}

func (p *pgxScript) cursor() error {
	return pgx.BeginFunc(p.ctx, p.q, func(tx pgx.Tx) error {
		if err := p.exec(tx, "declare part cursor for select quantity from orders where customer = 'carol' order by order_id"); err != nil {
			return err
		}
		for range 3 {
			if err := p.rows(tx, "fetch 5 from part"); err != nil {
				return err
			}
		}
		return p.exec(tx, "close part")
	})
}

func (p *pgxScript) copy() error {
	rows := make([][]any, 10)
	for n := range rows {
		rows[n] = []any{key("c", n), n}
	}
	n, err := p.q.CopyFrom(p.ctx, pgx.Identifier{"accounts"}, []string{"id", "balance"}, pgx.CopyFromRows(rows))
	if err != nil {
		return err
	}
	p.show(n)
	_, err = p.q.CopyFrom(p.ctx, pgx.Identifier{"accounts"}, []string{"id", "balance"}, pgx.CopyFromRows([][]any{{"f-1", 1}, {"f-2", -1}}))
	p.fails(err)
	return p.balances()
}

func (p *pgxScript) errors() error {
	for _, statement := range wrongStatements {
		p.fails(p.exec(p.q, statement))
		p.fails(p.rows(p.q, statement))
	}
	p.fails(p.exec(p.q, ""))
	p.fails(p.exec(p.q, "select 1; select 2"))
	if conn, is := p.q.(*pgx.Conn); is {
		for _, statement := range []string{"begin", "begin", "commit", "commit"} {
			p.fails(p.exec(conn, statement))
		}
	}
	return nil
}

// pgxCancel cancels by pgx's own way, which closes the connection, and by a cancel request, after which it goes on.
func (s *script) pgxCancel(config *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(s.ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(s.ctx) }() // closed by the cancel already
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(s.ctx, "select pg_sleep(30)")
		done <- err
	}()
	for {
		select {
		case err := <-done:
			s.fails(err)
			var one int
			err = conn.QueryRow(s.ctx, "select 1").Scan(&one)
			s.show(one, err)
			short, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
			defer cancel()
			_, err = conn.Exec(short, "select pg_sleep(30)")
			s.show(errors.Is(err, context.DeadlineExceeded), conn.IsClosed())
			return nil
		case <-time.After(300 * time.Millisecond):
			if err := conn.PgConn().CancelRequest(s.ctx); err != nil {
				return err
			}
		}
	}
}

func (s *script) pgxReconnect(conn *pgx.Conn, config *pgx.ConnConfig) error {
	if _, err := conn.Exec(s.ctx, "set application_name = 'first'"); err != nil {
		return err
	}
	again := config.Copy()
	again.RuntimeParams["application_name"], again.RuntimeParams["statement_timeout"] = "second", "5000"
	other, err := pgx.ConnectConfig(s.ctx, again)
	if err != nil {
		return err
	}
	p := &pgxScript{script: s, q: other}
	if err := errors.Join(p.rows(other, "show application_name"), p.rows(other, "show statement_timeout"), p.balances()); err != nil {
		return err
	}
	s.show(other.PgConn().ParameterStatus("application_name"), conn.PgConn().ParameterStatus("application_name"))
	return other.Close(s.ctx)
}
