package drivers

import (
	"errors"
	"fmt"
	"slices"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

type gormAccount struct {
	ID      string `gorm:"primaryKey"`
	Balance int64
}

func (gormAccount) TableName() string { return "accounts" }

type gormOrder struct {
	Customer string `gorm:"primaryKey"`
	OrderID  string `gorm:"primaryKey;type:uuid"`
	Sku      *string
	Quantity int64
	Amount   int64
}

func (gormOrder) TableName() string { return "orders" }

// gormDriver is GORM with its own choice of driver (pgx).
func gormDriver() driver {
	return goDriver("GORM", "gorm.io/gorm", func(s *script) {
		db, err := gorm.Open(postgres.Open(s.to.url()), &gorm.Config{Logger: logger.Discard})
		if err != nil {
			s.report(err)
			return
		}
		if pool, err := db.DB(); err == nil {
			defer pool.Close()
		}
		g := &gormScript{script: s, db: db.WithContext(s.ctx)}
		g.section("connect", func() error { return g.db.Raw("select 1").Error })
		g.section("prepared", g.prepared)
		g.section("transfer", g.transfer)
		g.section("check", g.check)
		g.section("savepoint", g.savepoint)
		g.section("batch", g.batch)
		g.section("cursor", g.cursor)
		g.section("errors", g.errors)
		g.section("introspect", g.introspect)
	})
}

type gormScript struct {
	*script
	db *gorm.DB
}

func (g *gormScript) balances() error {
	for _, who := range []string{"alice", "bob"} {
		var account gormAccount
		if err := g.db.First(&account, "id = ?", who).Error; err != nil {
			return err
		}
		g.show(account)
	}
	return nil
}

func (g *gormScript) prepared() error {
	session := g.db.Session(&gorm.Session{PrepareStmt: true})
	for n := range 12 {
		var account gormAccount
		if err := session.First(&account, "id = ?", key("d", n)).Error; err != nil {
			return err
		}
		account.Balance += int64(n)
		if err := session.Save(&account).Error; err != nil {
			return err
		}
		g.show(account)
	}
	// Save of what is not there is an insert with ON CONFLICT.
	return session.Save(&gormAccount{ID: "saved", Balance: 1}).Error
}

func (g *gormScript) move(tx *gorm.DB, who string, amount int64) error {
	var account gormAccount
	if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&account, "id = ?", who).Error; err != nil {
		return err
	}
	changed := tx.Model(&account).Update("balance", gorm.Expr("balance + ?", amount))
	g.show(who, changed.RowsAffected)
	return changed.Error
}

func (g *gormScript) transfer() error {
	err := g.db.Transaction(func(tx *gorm.DB) error {
		return errors.Join(g.move(tx, "alice", -100), g.move(tx, "bob", 100))
	})
	return errors.Join(err, g.balances())
}

func (g *gormScript) check() error {
	g.fails(g.db.Transaction(func(tx *gorm.DB) error {
		if err := g.move(tx, "bob", 5000); err != nil {
			return err
		}
		return g.move(tx, "alice", -5000)
	}))
	return g.balances()
}

func (g *gormScript) savepoint() error {
	err := g.db.Transaction(func(tx *gorm.DB) error {
		if err := g.move(tx, "alice", -1); err != nil {
			return err
		}
		g.fails(tx.Transaction(func(nested *gorm.DB) error {
			return nested.Create(&gormAccount{ID: "bob", Balance: 1}).Error
		}))
		return tx.Transaction(func(nested *gorm.DB) error { return g.move(nested, "bob", 1) })
	})
	return errors.Join(err, g.balances())
}

func (g *gormScript) batch() error {
	sku := "sku-1"
	var orders []gormOrder
	for n := range 20 {
		orders = append(orders, gormOrder{Customer: "gorm", OrderID: fmt.Sprintf("00000000-0000-0000-0000-%012d", n), Sku: &sku, Quantity: int64(n)})
	}
	// One customer: one node.
	if err := g.db.CreateInBatches(&orders, 7).Error; err != nil {
		return err
	}
	upsert := g.db.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "customer"}, {Name: "order_id"}}, DoUpdates: clause.AssignmentColumns([]string{"amount"})})
	if err := upsert.Create(&gormOrder{Customer: "gorm", OrderID: orders[3].OrderID, Amount: 99}).Error; err != nil {
		return err
	}
	var accounts []gormAccount
	for n := range 12 {
		accounts = append(accounts, gormAccount{ID: key("k", n), Balance: int64(n)})
	}
	if err := g.db.Create(&accounts).Error; err != nil {
		return err
	}
	var found []gormAccount
	err := g.db.Where("id in ?", []string{key("k", 1), key("k", 2), key("k", 3), key("k", 4)}).Find(&found).Error
	slices.SortFunc(found, func(a, b gormAccount) int { return int(a.Balance - b.Balance) })
	g.show(found)
	return err
}

func (g *gormScript) cursor() error {
	rows, err := g.db.Model(&gormOrder{}).Where("customer = ?", "carol").Order("order_id").Rows()
	if err != nil {
		return err
	}
	defer rows.Close()
	var sum int64
	for rows.Next() {
		var order gormOrder
		if err := g.db.ScanRows(rows, &order); err != nil {
			return err
		}
		sum += order.Quantity
	}
	g.show(sum)
	var in []gormOrder
	err = g.db.Where("customer = ?", "carol").FindInBatches(&in, 20, func(tx *gorm.DB, batch int) error {
		g.show(batch, len(in), in[0].OrderID)
		return nil
	}).Error
	return errors.Join(rows.Err(), err)
}

func (g *gormScript) errors() error {
	g.fails(g.db.First(&gormAccount{}, "id = ?", "nobody").Error)
	g.fails(g.db.Create(&gormAccount{ID: "alice"}).Error)
	for _, statement := range wrongStatements {
		g.fails(g.db.Exec(statement).Error)
	}
	return nil
}

func (g *gormScript) introspect() error {
	migrator := g.db.Migrator()
	g.show(migrator.CurrentDatabase(), migrator.HasTable("accounts"), migrator.HasTable("no_such_table"), migrator.HasColumn(&gormOrder{}, "sku"),
		migrator.HasIndex("orders", "orders_pkey"), migrator.HasConstraint("accounts", "accounts_balance_check"))
	tables, err := migrator.GetTables()
	if err != nil {
		return err
	}
	slices.Sort(tables)
	g.show(tables)
	columns, err := migrator.ColumnTypes(&gormOrder{})
	if err != nil {
		return err
	}
	for _, column := range columns {
		primary, _ := column.PrimaryKey()
		nullable, _ := column.Nullable()
		full, _ := column.ColumnType()
		g.show(column.Name(), column.DatabaseTypeName(), full, primary, nullable)
	}
	indexes, err := migrator.GetIndexes(&gormOrder{})
	for _, index := range indexes {
		g.show(index.Table(), index.Name(), index.Columns())
	}
	return err
}
